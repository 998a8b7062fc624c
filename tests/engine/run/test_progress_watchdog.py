"""The pulse: silence counts only while somebody listens, and only where it means something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.core.base.outcome import Exited
from orchestrator.core.model.plan import Budgets
from orchestrator.core.run.actions import Action, Inspect, Launch
from orchestrator.core.run.events import Event, Launched, NodeConcluded, RankExited, RankStarted
from orchestrator.core.run.evidence import Inspected, Inspection, RankEvidence, Stalled
from orchestrator.core.run.kit_reports import Progressed, Reported
from orchestrator.core.run.machine import step
from orchestrator.engine.progress_watchdog import STARTUP_S, ProgressWatchdog
from tests.core.world import World, request

LIMIT_S = 60.0


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_000_000.0 + self.now


def up(action: Action) -> Sequence[Event]:
    """The node's ranks start and go on."""
    assert isinstance(action, Launch)
    started = [RankStarted(node=action.node, rank=r, pid=r + 100) for r in action.share.ranks]
    return [Launched(node=action.node), *started]


class Run:
    """Two nodes with a rank each, both running, and a pulse that watches them."""

    def __init__(self, *, hang_s: float | None = LIMIT_S, asked: bool = False) -> None:
        wanted = replace(request("a", "b"), budgets=Budgets(hang_s=hang_s, hang_asked=asked))
        replies = {f"Follow/{node}": lambda _: [] for node in "ab"}
        world = World(wanted, {"Launch/a": up, "Launch/b": up, **replies})
        world.run()
        self.state = world.state
        self.time = Time()
        self.broken: set[str] = set()
        self.told: list[Stalled] = []
        self.actions: list[Action] = []
        self.pulse = ProgressWatchdog(self.state, self.time, self._tell, lambda: self.broken)

    def _tell(self, event: Event) -> None:
        assert isinstance(event, Stalled)
        self.told.append(event)

    def hear(self, *events: Event) -> None:
        for event in events:
            self.state, actions = step(self.state, event)
            self.actions += actions
            self.pulse.on_event(0.0, event, self.state)

    def progress(self, *ranks: int, done: float = 1.0) -> None:
        for rank in ranks:
            node = "ab"[rank]
            self.hear(Progressed(node=node, rank=rank, done=done, total=9.0, unit="steps"))

    def wait(self, seconds: float) -> None:
        """Let time pass, beat by beat."""
        for _ in range(round(seconds / self.pulse.every_s)):
            self.time.now += self.pulse.every_s
            self.pulse.beat()


def quiet(rank: int, quiet_s: float) -> Inspection:
    found = RankEvidence(rank=rank, pid=1, state="S", quiet_s=quiet_s)
    return Inspection(ranks=(found,))


def test_ranks_that_reported_and_fell_silent_are_suspected_once() -> None:
    run = Run()
    run.progress(0, 1)
    run.wait(LIMIT_S - 5)
    assert run.told == []
    run.wait(10)
    assert [(s.ranks, s.limit_s) for s in run.told] == [((), LIMIT_S)]
    assert run.told[0].silent_s >= LIMIT_S


def test_a_log_line_or_a_metric_is_a_sign_of_life() -> None:
    run = Run()
    run.progress(0, 1)
    for _ in range(4):
        run.wait(LIMIT_S - 10)
        run.pulse.on_log("a", "rank-0.err", b"x")
        run.wait(LIMIT_S - 10)
        run.hear(Reported(node="b", rank=1, name="loss", value=1.0, unit="", step=1))
    assert run.told == []


def test_what_no_rank_wrote_is_no_sign_of_life() -> None:
    run = Run()
    run.progress(0, 1)
    for _ in range(20):
        run.wait(LIMIT_S / 10)
        run.pulse.on_log("a", "launcher.err", b"x")
    assert run.told


def test_ranks_that_never_report_are_judged_only_if_asked() -> None:
    run = Run()
    run.pulse.on_log("a", "rank-0.out", b"x")
    run.wait(LIMIT_S * 10)
    assert run.told == []
    run = Run(asked=True)
    run.wait(LIMIT_S + 5)
    assert run.told


def test_ranks_get_time_to_start() -> None:
    """However short the limit: importing torch takes a while. Once they wrote, it applies."""
    run = Run(hang_s=2.0, asked=True)
    run.wait(STARTUP_S - 2)
    assert run.told == []
    run.wait(4)
    assert len(run.told) == 1
    run = Run(hang_s=2.0, asked=True)
    run.pulse.on_log("a", "rank-0.out", b"x")
    run.pulse.on_log("b", "rank-1.out", b"x")
    run.wait(3)
    assert len(run.told) == 1


def test_off_means_off() -> None:
    run = Run(hang_s=None, asked=True)
    run.progress(0, 1)
    run.wait(5000)
    assert run.told == []


def test_one_silent_rank_is_suspected_if_it_used_to_progress() -> None:
    run = Run()
    run.progress(0, 1)
    run.progress(0, 1, done=2.0)
    for number in range(14):
        run.wait(5)
        run.progress(0, done=number)
    assert [s.ranks for s in run.told] == [(1,)]


@pytest.mark.parametrize("reports", [[1.0], [1.0, 9.0]])
def test_a_rank_that_reported_once_or_is_done_may_be_silent_while_others_go_on(
    reports: list[float],
) -> None:
    run = Run()
    for done in reports:
        run.progress(1, done=done)
    for number in range(50):
        run.wait(5)
        run.progress(0, done=number)
    assert run.told == []


def test_ranks_that_ended_are_not_silent() -> None:
    run = Run()
    run.progress(0, 1)
    run.hear(RankExited(node="a", rank=0, outcome=Exited(0), at=1.0))
    run.hear(RankExited(node="b", rank=1, outcome=Exited(0), at=1.0))
    run.hear(NodeConcluded(node="a", clean=True))
    run.wait(LIMIT_S * 3)
    assert run.told == []


def test_a_broken_link_is_not_silence_of_the_ranks() -> None:
    """Its time does not count; what counted before does."""
    run = Run()
    run.progress(0, 1)
    run.wait(LIMIT_S - 15)
    run.broken = {"b"}
    run.wait(LIMIT_S * 3)
    assert run.told == []
    run.broken = set()
    run.wait(20)
    assert [s.ranks for s in run.told] == [()]


def test_time_in_which_the_coordinator_slept_does_not_count() -> None:
    run = Run()
    run.progress(0, 1)
    run.wait(10)
    run.time.now += 3600
    run.pulse.beat()
    run.wait(LIMIT_S / 2)
    assert run.told == []


def test_a_suspicion_that_is_not_confirmed_does_not_come_again_at_once() -> None:
    """Every node is asked; one rank wrote something meanwhile, and the count begins anew."""
    run = Run()
    run.progress(0, 1)
    run.wait(LIMIT_S + 5)
    run.hear(run.told[0])
    assert run.actions == [Inspect(node="a", stall=1), Inspect(node="b", stall=1)]
    run.wait(LIMIT_S * 2)
    assert len(run.told) == 1, "one suspicion at a time"
    run.hear(Inspected(node="a", stall=1, inspection=quiet(0, LIMIT_S)))
    run.hear(Inspected(node="b", stall=1, inspection=quiet(1, 2.0)))
    assert run.state.stall is None
    assert not run.state.halted
    run.wait(LIMIT_S - 10)
    assert len(run.told) == 1
    run.wait(20)
    assert len(run.told) == 2
