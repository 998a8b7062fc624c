"""What the machine makes of a suspicion: it asks every node, and ends only what is confirmed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.core.base.codec import from_json, to_json
from orchestrator.core.base.errors import ExitCode
from orchestrator.core.base.outcome import Exited, Signalled
from orchestrator.core.base.problem import Problem
from orchestrator.core.run.actions import Action, Inspect
from orchestrator.core.run.events import (
    Connected,
    Event,
    NodeLost,
    RankExited,
    RankStarted,
    Resumed,
    StopKind,
    StopRequested,
)
from orchestrator.core.run.evidence import Collective, Inspected, Inspection, RankEvidence, Stalled
from orchestrator.core.run.machine import action_identity, step
from orchestrator.core.verdict.result import Result, Status
from orchestrator.core.verdict.verdict import conclude_run
from orchestrator.view.progress.narrate import Weight, narrate_event
from tests.core.world import World, request

AT = 2000.0
STALLED = Stalled(silent_s=95.0, limit_s=90.0, at=AT)
NODES = ("a", "b", "c")
Answers = dict[str, Callable[[Action], list[Event]]]


def evidence(rank: int, *, quiet_s: float = 95.0, state: str = "S") -> Inspection:
    seen = RankEvidence(
        rank=rank,
        pid=100 + rank,
        state=state,
        quiet_s=quiet_s,
        collectives=(Collective(group="default_pg", entered=7, completed=6, operation="barrier"),),
        last_line=f"step {rank}",
    )
    return Inspection(ranks=(seen,))


def answer(inspection: Inspection) -> Callable[[Action], list[Event]]:
    def reply(action: Action) -> list[Event]:
        assert isinstance(action, Inspect)
        return [Inspected(node=action.node, stall=action.stall, inspection=inspection)]

    return reply


def running(action: Action) -> list[Event]:
    """The node's only rank is up and goes on: rank 0 on a, 1 on b, 2 on c."""
    node = getattr(action, "node", "")
    return [RankStarted(node=node, rank=NODES.index(node), pid=100)]


def world(*, frozen: int | None = None, lively: int | None = None, **more: object) -> World:
    """Three running nodes; what they answer when they are looked at."""
    replies: Answers = {f"Follow/{node}": running for node in NODES}
    for rank, node in enumerate(NODES):
        seen = evidence(
            rank,
            state="T" if rank == frozen else "S",
            quiet_s=1.0 if rank == lively else 95.0,
        )
        replies[f"Inspect/{node}/1"] = replies[f"Inspect/{node}/2"] = answer(seen)
    return World(request(*NODES), {**replies, **more})  # type: ignore[arg-type,dict-item]


def result(of: World) -> Result:
    return conclude_run(of.state, timings={}, report="")


def test_a_confirmed_hang_ends_the_run_and_names_the_rank() -> None:
    """All nodes are asked, then stopped and swept; the verdict says who, why, and where to look."""
    run = world(frozen=1)
    run.run(STALLED)

    assert {f"Inspect/{node}/1" for node in NODES} <= set(run.performed)
    assert {f"{action}/{node}" for node in NODES for action in ("Stop", "Sweep")} <= {
        name.removesuffix("/10") for name in run.performed
    }
    found = result(run)
    assert (found.status, found.exit_code) == (Status.FAILED, ExitCode.RUN_FAILED)
    assert found.failure is not None
    assert found.failure.id == "OR-HANG-001"
    assert (found.failure.node, found.failure.rank) == ("b", 1)
    assert found.failure.cause == (
        "rank 1 on b is stopped (SIGSTOP); 2 ranks wait for it in barrier (no progress for 95 s)"
    )
    assert (found.failure.evidence, found.failure.last_line) == ("hang", "step 1")
    assert "--budget hang=" in found.failure.remedy
    assert {n.name: n.state for n in found.nodes} == {"a": "stopped", "b": "failed", "c": "stopped"}


def test_a_suspicion_that_is_not_confirmed_is_forgotten() -> None:
    """And may come again; the run itself never notices."""
    run = world(lively=2)
    run.run(STALLED, STALLED)

    assert "Inspect/a/1" in run.performed
    assert "Inspect/a/2" in run.performed
    assert not any(name.startswith("Stop") for name in run.performed)
    assert run.state.stall is None
    assert not run.state.halted


def test_nothing_is_decided_before_every_node_was_looked_at() -> None:
    run = world(frozen=1, **{"Inspect/c/1": lambda _: []})
    run.run(STALLED)
    assert run.state.hang is None
    run.run(Inspected(node="c", stall=1, inspection=evidence(2)))
    assert run.state.hang is not None


def test_ranks_that_fail_because_we_ended_the_hang_are_not_the_cause() -> None:
    """Their peers went away under them."""
    run = world(frozen=1)
    broken = RankExited(node="a", rank=0, outcome=Exited(1), at=AT + 9, last_line="peer closed")
    ours = RankExited(node="c", rank=2, outcome=Signalled(15), at=AT + 9, by_us=True)
    run.run(STALLED, broken, ours)
    found = result(run).failure
    assert found is not None
    assert found.id == "OR-HANG-001"
    assert found.others == ("c/rank 2",)


def test_a_rank_that_failed_before_is_the_cause() -> None:
    """The others hang because it is gone: there is nothing to look for."""
    run = world(frozen=1)
    run.run(RankExited(node="a", rank=0, outcome=Exited(3), at=AT - 100), STALLED)
    found = result(run).failure
    assert found is not None
    assert (found.id, found.rank) == ("OR-RUN-001", 0)
    assert not any(name.startswith("Inspect") for name in run.performed)


def test_a_node_that_is_lost_while_it_is_looked_at_is_the_cause() -> None:
    run = world(frozen=1, **{"Inspect/c/1": lambda _: []})
    run.run(STALLED, NodeLost(node="c", problem=Problem(id="OR-LINK-001", message="silent")))
    found = result(run).failure
    assert found is not None
    assert found.id == "OR-LINK-001"


def test_a_node_out_of_reach_proves_nothing() -> None:
    run = world(frozen=1, **{"Inspect/c/1": answer(Inspection(reachable=False))})
    run.run(STALLED)
    assert run.state.stall is None
    assert not run.state.halted


@pytest.mark.parametrize("moment", ["before launch", "after a stop", "during a suspicion"])
def test_suspicions_that_come_at_a_wrong_time_change_nothing(moment: str) -> None:
    run = world(**({"Sync/a": lambda _: []} if moment == "before launch" else {}))
    if moment == "after a stop":
        run.run(StopRequested(kind=StopKind.GRACEFUL, by="SIGINT", at=1.0))
    elif moment == "during a suspicion":
        run = world(**{f"Inspect/{node}/1": lambda _: [] for node in NODES})
        run.run(STALLED)
    else:
        run.run()
    state, actions = step(run.state, Stalled(silent_s=1.0, limit_s=1.0, at=AT + 1))
    assert state is run.state
    assert actions == ()


def test_answers_to_an_earlier_suspicion_do_not_count_for_a_later_one() -> None:
    run = world(lively=0, **{"Inspect/b/2": lambda _: []})
    run.run(STALLED, STALLED)
    late = Inspected(node="b", stall=1, inspection=evidence(1, state="T"))
    assert step(run.state, late)[0] is run.state


def test_a_coordinator_that_takes_over_looks_for_itself() -> None:
    """The suspicion is in the journal; what was asked died with the old process."""
    run = world(**{f"Inspect/{node}/1": lambda _: [] for node in NODES})
    run.run(STALLED)
    state, _ = step(run.state, Resumed(epoch=4, at=AT + 5))
    asked: list[str] = []
    for node in NODES:
        state, actions = step(state, Connected(node=node, seconds=0.1))
        asked += [action_identity(action) for action in actions]
    assert {f"Inspect/{node}/1" for node in NODES} <= set(asked)


def test_another_attempt_begins_without_suspicion() -> None:
    run = world(frozen=1)
    run.run(STALLED)
    state, _ = step(run.state, Resumed(epoch=4, at=AT + 50, again=True))
    assert (state.stall, state.hang, state.stalls) == (None, None, 0)


def test_the_journal_keeps_suspicions_and_evidence() -> None:
    for event in (STALLED, Inspected(node="a", stall=1, inspection=evidence(0))):
        assert from_json(Event, to_json(event)) == event


def test_people_are_told_of_the_suspicion_and_of_what_came_of_it() -> None:
    """At once, also with --quiet: the run may end because of it."""

    def told(run: World) -> list[tuple[str, Weight]]:
        run.run(STALLED)
        lines, state = [], run.log
        for event, _ in state:
            if isinstance(event, Stalled):
                lines.append(narrate_event(event, run.state))
        last = next(e for e, _ in reversed(state) if isinstance(e, Inspected))
        lines.append(narrate_event(last, run.state))
        return [(line.text, line.weight) for line in lines if line is not None]

    assert told(world(frozen=1)) == [
        ("no progress for 95 s: looking at all ranks", Weight.PROBLEM),
        ("rank 1 on b is stopped (SIGSTOP); 2 ranks wait for it in barrier", Weight.PROBLEM),
    ]
    assert told(world(lively=0))[1][1] is Weight.RUN
