"""The watch over links: what counts as a broken one, and when it ends an attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.adapters.agent_client.channel import AgentTimeout
from orchestrator.core.fabric.fabric_verdict import Link
from orchestrator.core.model.plan import Budgets
from orchestrator.core.run.actions import Action, Launch
from orchestrator.core.run.connectivity import LinksBroken
from orchestrator.core.run.events import Event, Launched, NodeConcluded, RankStarted
from orchestrator.core.run.kit_reports import Progressed
from orchestrator.core.run.machine import step
from orchestrator.engine.network.link_watchdog import LinkWatchdog
from orchestrator.parsing.replies.reach_records import TcpResult
from tests.core.world import World, request

LIMIT_S = 15.0
NAMES = ("a", "b", "c")
TIMED_OUT = TcpResult(ok=False, error="timed out")


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_000_000.0 + self.now


class Node:
    """A node whose port tells who it is; ``faults`` are shared."""

    def __init__(self, name: str, faults: dict[Link, TcpResult]) -> None:
        self.name = name
        self.broken = False
        self.mute = False
        self.dialled = 0
        self._faults = faults

    async def listen(self) -> int:
        return 1000 + NAMES.index(self.name)

    async def dial(self, targets: Sequence[tuple[str, int]], timeout_s: float) -> list[TcpResult]:
        del timeout_s
        if self.mute:
            raise AgentTimeout("no answer", id="OR-AGENT-TIMEOUT")
        self.dialled += len(targets)
        ends = [NAMES[port - 1000] for _, port in targets]
        return [self._faults.get((self.name, end), TcpResult(ok=True)) for end in ends]


def up(action: Action) -> Sequence[Event]:
    assert isinstance(action, Launch)
    started = [RankStarted(node=action.node, rank=r, pid=r + 100) for r in action.share.ranks]
    return [Launched(node=action.node), *started]


class Run:
    """Three nodes with a rank each, all running, and a watch over their links."""

    def __init__(self, link_s: float | None = LIMIT_S) -> None:
        wanted = replace(request(*NAMES), launcher="direct", budgets=Budgets(link_s=link_s))
        replies = {f"Launch/{n}": up for n in NAMES}
        world = World(wanted, {**replies, **{f"Follow/{n}": lambda _: [] for n in NAMES}})
        world.run()
        assert world.state.launching
        assert not world.state.halted
        self.state = world.state
        self.time = Time()
        self.faults: dict[Link, TcpResult] = {}
        self.nodes = {name: Node(name, self.faults) for name in NAMES}
        self.told: list[Event] = []
        self.watch = LinkWatchdog(self.state, self.time, self.told.append, lambda: self.nodes)

    def hear(self, *events: Event) -> None:
        for event in events:
            self.state, _ = step(self.state, event)
            self.watch.on_event(0.0, event, self.state)

    def progress(self) -> None:
        self.hear(Progressed(node="a", rank=0, done=1.0, total=9.0, unit="steps"))

    async def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / self.watch.every_s)):
            self.time.now += self.watch.every_s
            await self.watch.look()

    def cut(self, first: str, second: str) -> None:
        self.faults[first, second] = self.faults[second, first] = TIMED_OUT


async def test_a_link_that_stays_broken_without_progress_is_told_once() -> None:
    run = Run()
    await run.wait(9)
    run.cut("b", "c")
    await run.wait(LIMIT_S)
    assert run.told == []
    await run.wait(6)
    (event,) = run.told
    assert isinstance(event, LinksBroken)
    assert event.links == (("b", "c"), ("c", "b"))
    assert LIMIT_S <= event.seconds <= LIMIT_S + 6
    run.hear(event)
    assert run.state.links == event
    assert run.state.halted
    await run.wait(60)
    assert len(run.told) == 1


async def test_a_short_cut_is_no_broken_link() -> None:
    run = Run()
    await run.wait(9)
    for _ in range(5):
        run.cut("b", "c")
        await run.wait(LIMIT_S - 3)
        run.faults.clear()
        await run.wait(3)
    assert run.told == []


async def test_ranks_that_go_on_do_not_need_the_link() -> None:
    """Logs count as well; once they stop, so does the patience."""
    run = Run()
    await run.wait(9)
    run.cut("b", "c")
    for _ in range(10):
        await run.wait(9)
        run.progress()
        await run.wait(9)
        run.watch.on_log("a", "rank-0.err", b"x")
    assert run.told == []
    for _ in range(4):
        run.watch.on_log("a", "launcher.err", b"x")
        await run.wait(6)
    assert len(run.told) == 1


@pytest.mark.parametrize("error", ["Connection refused", "[Errno 111] Connection refused"])
async def test_whoever_refuses_is_there(error: str) -> None:
    """An agent that was replaced does not listen any more."""
    run = Run()
    await run.wait(9)
    run.faults["a", "b"] = TcpResult(ok=False, error=error)
    await run.wait(LIMIT_S * 3)
    assert run.told == []


async def test_what_never_worked_did_not_break() -> None:
    run = Run()
    run.cut("a", "b")
    await run.wait(LIMIT_S * 3)
    assert run.told == []


async def test_a_node_that_we_cannot_ask_tells_nothing_of_its_links() -> None:
    """Its SSH link is broken, or it does not answer: its data links are unknown, both ways."""
    run = Run()
    await run.wait(9)
    run.cut("a", "b")
    run.nodes["b"].broken = True
    await run.wait(LIMIT_S * 3)
    assert run.told == []
    run.nodes["b"].broken = False
    run.nodes["a"].mute = run.nodes["b"].mute = True
    await run.wait(LIMIT_S * 3)
    assert run.told == []
    run.nodes["a"].mute = False
    await run.wait(LIMIT_S + 6)
    assert [e.links for e in run.told if isinstance(e, LinksBroken)] == [(("a", "b"),)]


async def test_answers_that_come_too_late_do_not_make_a_broken_link_whole() -> None:
    """On a machine with much other work every second answer of both ends is late."""
    run = Run()
    await run.wait(9)
    run.cut("b", "c")
    for number in range(round(2 * LIMIT_S / run.watch.every_s)):
        run.nodes["b"].mute = run.nodes["c"].mute = number % 2 == 1
        await run.wait(run.watch.every_s)
    assert [e.links for e in run.told if isinstance(e, LinksBroken)] == [(("b", "c"), ("c", "b"))]


async def test_time_in_which_the_coordinator_slept_does_not_count() -> None:
    run = Run()
    await run.wait(9)
    run.cut("b", "c")
    await run.wait(3)
    run.time.now += 3600
    await run.watch.look()
    assert run.told == []
    run.faults.clear()
    await run.wait(LIMIT_S)
    assert run.told == []


async def test_off_means_off_and_a_run_that_ends_is_left_alone() -> None:
    run = Run(link_s=None)
    await run.wait(30)
    assert [node.dialled for node in run.nodes.values()] == [0, 0, 0]
    run = Run()
    await run.wait(9)
    run.hear(NodeConcluded(node="a", clean=True))
    before = [node.dialled for node in run.nodes.values()]
    await run.wait(30)
    assert [node.dialled for node in run.nodes.values()] == before
