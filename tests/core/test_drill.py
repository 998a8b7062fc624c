"""Drills: what is judged kept, what is read from a run's events, and how faults are spread."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.outcome import Exited, Signalled
from orchestrator.core.base.problem import Problem
from orchestrator.core.drill_promises import (
    NOTHING_LEFT,
    Drill,
    DrillFinding,
    DrillLimits,
    DrillOutcome,
    Moment,
    Promise,
    PromiseKept,
    assign_targets,
    judge_all,
    judge_promise,
    list_drills,
    names_killed_rank,
    names_lost_supervisor,
    ranks_run,
    time_until,
    verified_clean,
    wrong_log,
    wrong_name,
)
from orchestrator.core.run.actions import Action
from orchestrator.core.run.events import (
    Event,
    Failed,
    NodeConcluded,
    Phase,
    RankExited,
    RankStarted,
    Swept,
)
from orchestrator.core.run.machine import step
from orchestrator.core.run.state import new_state
from orchestrator.core.verdict.verdict import conclude_run
from tests.core.world import Reply, World, request

ALL = list_drills(DrillLimits())
LINES = 5


def numbered(*lines: int) -> bytes:
    return b"".join(b"line %d of rank 3\n" % line for line in lines)


# ---- judging -----------------------------------------------------------------------------------


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_time_is_kept_exactly_up_to_its_limit(limit_s: float, seconds: float) -> None:
    """At the limit is kept, beyond it is broken, and what was measured is told in both cases."""
    judged = judge_promise(
        Promise(name="x", text="x", limit_s=limit_s), DrillFinding(seconds=seconds)
    )
    assert (judged.verdict is PromiseKept.KEPT) == (seconds <= limit_s)
    assert judged.seconds == seconds


@pytest.mark.parametrize("limit_s", [None, 1e9])
@pytest.mark.parametrize(
    "finding", [None, DrillFinding(wrong="no"), DrillFinding(seconds=0.0, wrong="no")]
)
def test_what_was_not_seen_to_hold_is_broken(
    limit_s: float | None, finding: DrillFinding | None
) -> None:
    """However generous the limit is."""
    judged = judge_promise(Promise(name="x", text="x", limit_s=limit_s), finding)
    assert judged.verdict is PromiseKept.BROKEN
    assert judged.detail


def test_a_limit_without_a_time_is_broken() -> None:
    """A missing measurement never passes."""
    judged = judge_promise(Promise(name="x", text="x", limit_s=9.0), DrillFinding())
    assert judged.verdict is PromiseKept.BROKEN


@pytest.mark.parametrize("drill", ALL, ids=lambda drill: drill.name)
def test_a_drill_is_kept_only_if_every_promise_is(drill: Drill) -> None:
    """Each promise alone can break it; without any judgement it was not run."""
    good = {promise.name: DrillFinding(seconds=0.1) for promise in drill.promises}

    def verdict(findings: dict[str, DrillFinding]) -> PromiseKept:
        judged = judge_all(drill, findings)
        return DrillOutcome(drill=drill, node="a", judged=judged).verdict

    assert verdict(good) is PromiseKept.KEPT
    for name in good:
        assert verdict({**good, name: DrillFinding(wrong="no")}) is PromiseKept.BROKEN
        assert verdict({n: f for n, f in good.items() if n != name}) is PromiseKept.BROKEN
    assert DrillOutcome(drill=drill, node="a", reason="no SSH").verdict is PromiseKept.NOT_RUN


def test_every_drill_promises_something_and_that_nothing_is_left() -> None:
    """Their names are different, for they are how people choose."""
    assert len({drill.name for drill in ALL}) == len(ALL) == 8
    assert all(len(drill.promises) > 1 for drill in ALL)
    assert all(drill.promises[-1].name == NOTHING_LEFT for drill in ALL)


@given(st.floats(1, 60), st.floats(1, 60))
def test_limits_follow_the_budgets_that_the_runs_get(hang_s: float, lease_s: float) -> None:
    """A promise that depends on a budget grows with it."""
    found = {d.name: d for d in list_drills(DrillLimits(hang_s=hang_s, lease_s=lease_s))}
    assert found["freeze-rank"].budgets.hang_s == hang_s
    assert found["freeze-rank"].promises[0].limit_s == hang_s + 10
    assert found["lease"].budgets.lease_s == lease_s
    assert found["lease"].promises[0].limit_s == lease_s + 10


@given(st.integers(1, 9))
def test_faults_are_spread_over_the_nodes(count: int) -> None:
    """In turn, so that no node has two more than another; those here are on none."""
    nodes = [f"n{number}" for number in range(count)]
    pairs = assign_targets(ALL, nodes)
    assert [drill for drill, _ in pairs] == list(ALL)
    assert all((node == "") == drill.here for drill, node in pairs)
    hit = [node for _, node in pairs if node]
    counts = [hit.count(node) for node in nodes]
    assert max(counts) - min(counts) <= 1


# ---- reading what happened ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        numbered(0, 1, 2, 3),
        numbered(0, 1, 2, 3, 4)[:-1],
        numbered(0, 1, 1, 2, 3, 4),
        numbered(0, 1, 3, 4),
        numbered(0, 1, 2, 3, 4, 4),
        numbered(0, 1, 2, 3, 4) + b"li",
        numbered(0, 2, 1, 3, 4),
    ],
)
def test_a_log_with_a_byte_lost_or_doubled_is_wrong(content: bytes) -> None:
    """Missing, cut, doubled, exchanged, or more than there should be."""
    assert wrong_log(content, 3, LINES)


def test_a_whole_log_is_right() -> None:
    """Each line once, in order."""
    assert wrong_log(numbered(0, 1, 2, 3, 4), 3, LINES) == ""
    assert wrong_log(numbered(0, 1, 2, 3, 4), 2, LINES)


@given(st.data())
def test_any_byte_that_is_missing_is_noticed(data: st.DataObject) -> None:
    """Wherever it was."""
    whole = numbered(*range(LINES))
    at = data.draw(st.integers(0, len(whole) - 1))
    assert wrong_log(whole[:at] + whole[at + 1 :], 3, LINES)


def moments(replies: dict[str, Reply]) -> list[Moment]:
    """What a run of three ranks on a, b and c went through, a second apart."""
    asked = replace(request("a", "b", "c"), launcher="direct")
    world = World(asked, replies)
    world.run()
    state, found = new_state(asked), []
    for at, (event, _) in enumerate(world.log):
        state, _ = step(state, event)
        found.append(Moment(at=float(at), event=event, state=state))
    return found


def killed(node: str, rank: int, number: int = 9) -> dict[str, Reply]:
    """Rank ``rank`` on ``node`` dies by a signal; the others go on until they are stopped."""

    def dies(_: Action) -> list[Event]:
        return [
            RankStarted(node=node, rank=rank, pid=7),
            RankExited(node=node, rank=rank, outcome=Signalled(number), at=1.0),
            NodeConcluded(node=node, clean=True),
        ]

    def goes_on(name: str, own: int) -> Reply:
        return lambda _: [RankStarted(node=name, rank=own, pid=8)]

    def stopped(name: str, own: int) -> Reply:
        ended = RankExited(node=name, rank=own, outcome=Exited(0), at=2.0, by_us=True)
        return lambda _: [ended, NodeConcluded(node=name, clean=True)]

    others = {"a": 0, "b": 1, "c": 2}
    del others[node]
    replies: dict[str, Reply] = {f"Follow/{node}": dies}
    for name, own in others.items():
        replies[f"Follow/{name}"] = goes_on(name, own)
        replies[f"Stop/{name}/10"] = stopped(name, own)
    return replies


def test_a_killed_rank_is_named_once_its_end_is_known() -> None:
    """Not before, not for another rank, not for another signal."""
    seen = moments(killed("b", 1))
    end = next(m.at for m in seen if isinstance(m.event, RankExited) and m.event.rank == 1)
    assert time_until(seen, 0.0, lambda s: names_killed_rank(s, "b", 1)) == DrillFinding(
        seconds=end
    )
    assert time_until(seen, 0.0, lambda s: names_killed_rank(s, "a", 0)).wrong
    other = moments(killed("b", 1, number=15))
    assert time_until(other, 0.0, lambda s: names_killed_rank(s, "b", 1)).wrong


def test_clean_is_when_the_last_node_said_so() -> None:
    """One that was not swept, or not clean, keeps it from being verified."""
    seen = moments(killed("b", 1))
    last = [m.at for m in seen if isinstance(m.event, Swept)][-1]
    assert time_until(seen, 0.0, verified_clean) == DrillFinding(seconds=last)
    dirty: Reply = lambda _: [Swept(node="c", clean=False, survivors=("7 x (D)",))]  # noqa: E731
    assert time_until(moments({**killed("b", 1), "Sweep/c": dirty}), 0.0, verified_clean).wrong


def test_ranks_run_when_each_of_them_has_started() -> None:
    """A plan alone is not enough."""
    seen = moments({})
    last = [m.at for m in seen if isinstance(m.event, RankStarted)][-1]
    assert time_until(seen, 0.0, ranks_run) == DrillFinding(seconds=last)


def test_a_lost_supervisor_is_named_by_its_problem() -> None:
    """On its own node only."""
    problem = Problem(id="OR-AGENT-SUPERVISOR", message="gone")
    lost: Reply = lambda _: [Failed(node="c", phase=Phase.WATCH, problem=problem)]  # noqa: E731
    seen = moments({"Follow/c": lost})
    assert time_until(seen, 0.0, lambda s: names_lost_supervisor(s, "c")).seconds is not None
    assert time_until(seen, 0.0, lambda s: names_lost_supervisor(s, "a")).wrong


def test_the_verdict_must_name_the_same() -> None:
    """Another node or rank in it, or no failure at all, speaks against the promise."""
    result = conclude_run(moments(killed("b", 1))[-1].state, timings={}, report="")
    assert wrong_name(result, "b", 1) == ""
    assert wrong_name(result, "b", 2)
    assert wrong_name(result, "a", 1)
    assert wrong_name(conclude_run(moments({})[-1].state, timings={}, report=""), "b", 1)
