"""A coordinator that takes a run over does what is not done, and nothing that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.core.base.errors import ExitCode
from orchestrator.core.base.outcome import Exited, Signalled
from orchestrator.core.base.problem import Problem
from orchestrator.core.run.actions import Action, Clear, Connect
from orchestrator.core.run.events import (
    Cleared,
    Collected,
    Event,
    Failed,
    Halting,
    Launched,
    NodeConcluded,
    NodeLost,
    Occupied,
    Phase,
    RankExited,
    Resumed,
    StopKind,
    StopRequested,
    Swept,
)
from orchestrator.core.run.kit_reports import Reported
from orchestrator.core.run.machine import action_identity, step
from orchestrator.core.run.state import FIRST_EPOCH, RunState, new_state
from orchestrator.core.verdict.result import Status
from orchestrator.core.verdict.verdict import conclude_run
from tests.core.world import World, request

TAKEN = Resumed(epoch=FIRST_EPOCH + 2, at=5000.0)
AGAIN = Resumed(epoch=FIRST_EPOCH + 2, at=5000.0, again=True)
STOP = StopRequested(kind=StopKind.GRACEFUL, by="SIGINT", at=2000.0)
GONE = Problem(id="OR-LINK-001", message="silent")


def replay(world: World, count: int) -> RunState:
    """The state after the first ``count`` events of ``world``."""
    state = new_state(world.state.request)
    for event, _ in world.log[:count]:
        state, _ = step(state, event)
    return state


def go_on(state: RunState, *events: Event, **replies: Sequence[Event]) -> World:
    """An obedient world that goes on from ``state`` with ``events``."""
    overrides = {name.replace("_", "/"): (lambda _, r=reply: r) for name, reply in replies.items()}
    world = World(state.request, overrides)  # type: ignore[arg-type]
    world.state = state
    world.run(*events)
    return world


def same_verdict(one: RunState, other: RunState) -> bool:
    first, second = (conclude_run(state, timings={}, report="") for state in (one, other))
    return first == second


def test_a_takeover_at_any_moment_leads_to_the_same_verdict() -> None:
    """After each event of an undisturbed run: nothing that was answered is asked again."""
    undisturbed = World(request("a", "b", "c"))
    undisturbed.run()
    for count in range(1, len(undisturbed.log) + 1):
        before = replay(undisturbed, count)
        world = go_on(before, TAKEN)
        assert world.concluded
        assert same_verdict(world.state, undisturbed.state), count
        for name, node in before.nodes.items():
            done = [
                ("Probe", node.facts is not None),
                ("Sync", node.synced),
                ("Launch", node.launched),
                ("Collect", node.collected is not None),
                ("Sweep", node.swept is not None),
            ]
            redone = {f"{verb}/{name}" for verb, true in done if true} & set(world.performed)
            assert not redone, count


def test_a_takeover_of_a_stopping_run_finishes_the_stop() -> None:
    """The stop that was asked for stands, and every node is stopped and swept."""
    world = World(request("a", "b"), {"Follow/a": lambda _: [], "Follow/b": lambda _: []})
    world.run(STOP)
    for count in range(1, len(world.log) + 1):
        if replay(world, count).stop is None:
            continue
        taken = go_on(replay(world, count), TAKEN, Follow_a=(), Follow_b=())
        result = conclude_run(taken.state, timings={}, report="")
        assert (result.status, result.exit_code) == (Status.STOPPED, ExitCode.INTERRUPTED)


def lapse(node: str, at: float = 3000.0) -> list[Event]:
    """The node's lease ran out, and its supervisor ended its rank."""
    rank = "ab".index(node)
    return [
        Halting(node=node, why="lease", at=at),
        RankExited(node=node, rank=rank, outcome=Signalled(15), at=at, by_us=True),
        NodeConcluded(node=node, clean=True, why="lease"),
    ]


def lapsed(*extra: Event) -> World:
    world = World(request("a", "b"), {"Follow/a": lambda _: [], "Follow/b": lambda _: []})
    world.run(*extra)
    return world


def test_a_lease_that_ran_out_is_no_success_and_can_be_resumed() -> None:
    """Ranks that ended themselves did not finish: exit 75, and the remedy is `resume`."""
    world = lapsed(*lapse("a"), *lapse("b"))
    result = conclude_run(world.state, timings={}, report="")
    assert world.concluded
    assert (result.status, result.exit_code) == (Status.FAILED, ExitCode.BUSY)
    assert result.failure is not None
    assert (result.failure.id, result.failure.node) == ("OR-LEASE-001", "a")
    assert "orchestrate resume" in result.failure.remedy


def test_a_rank_that_fails_because_a_lease_ran_out_elsewhere_is_not_the_cause() -> None:
    """Within what clocks may differ by; a failure long before the lease is a cause of its own."""
    failed = RankExited(node="b", rank=1, outcome=Exited(1), at=2999.5)
    assert not lapsed(*lapse("a"), failed).state.failures
    early = replace(failed, at=2000.0)
    assert lapsed(early, *lapse("a")).state.failures == (early,)


def test_ranks_that_a_lease_ended_go_on_in_another_attempt() -> None:
    """After a takeover, once: every node is verified clean first, then all is planned anew."""
    world = lapsed()
    taken = go_on(world.state, TAKEN, Follow_a=lapse("a"), Follow_b=lapse("b"))
    assert taken.state.attempt == 2
    assert taken.state.epoch == TAKEN.epoch + 2
    first_launch = taken.performed.index("Launch/a")
    assert {"Sweep/a", "Sweep/b"} <= set(taken.performed[:first_launch])
    # The obedient world answers the second attempt with the same lapse: nobody was away now.
    assert conclude_run(taken.state, timings={}, report="").exit_code is ExitCode.BUSY
    assert taken.performed.count("Launch/a") == 1


def test_a_lease_that_ran_out_after_the_last_rank_ended_well_is_no_lapse() -> None:
    """Only their launcher was ended: there is nothing to do again, whoever coordinates."""

    def late(node: str) -> list[Event]:
        well = RankExited(node=node, rank="ab".index(node), outcome=Exited(0), at=2999.0)
        halting, _, concluded = lapse(node)
        return [well, halting, concluded]

    world = lapsed()
    for ended in (
        lapsed(*late("a"), *late("b")),
        go_on(world.state, TAKEN, Follow_a=late("a"), Follow_b=late("b")),
    ):
        assert ended.state.attempt == 1
        assert conclude_run(ended.state, timings={}, report="").exit_code is ExitCode.DONE


def test_another_attempt_knows_nothing_of_the_last_one() -> None:
    """Not its failures, its figures or its stop; and it is planned from fresh facts."""
    figure = Reported(node="a", rank=0, name="x", value=1.0, unit="", step=None, position=9)
    world = World(request("a", "b"), {"Follow/a": lambda _: [figure], "Follow/b": lambda _: []})
    world.run(STOP)
    again = go_on(world.state, AGAIN)
    result = conclude_run(again.state, timings={}, report="")
    assert (result.status, result.exit_code) == (Status.SUCCEEDED, ExitCode.DONE)
    assert not result.metrics
    assert {"Probe/a", "Sync/b", "Launch/a"} <= set(again.performed)


@pytest.mark.parametrize(
    "left",
    [
        [NodeLost(node="b", problem=GONE)],
        [STOP, Swept(node="b", clean=False, survivors=("7 python (D)",))],
        [STOP, Swept(node="b", clean=True, gpu_drained=False)],
    ],
)
def test_what_an_attempt_may_have_left_is_ended_before_the_next(left: list[Event]) -> None:
    """A node that was lost or not clean is cleared first; one that stays so takes no part."""
    silent = {"Follow/a": lambda _: [], "Follow/b": lambda _: [], "Sweep/b": lambda _: []}
    world = World(request("a", "b"), silent)  # type: ignore[arg-type]
    world.run(*left)
    assert world.concluded
    good = go_on(world.state, AGAIN, Clear_b=[Cleared(node="b", clean=True)])
    assert good.performed.index("Clear/b") < good.performed.index("Launch/b")
    assert "Clear/a" not in good.performed
    waiting = go_on(world.state, AGAIN, Clear_b=[])
    assert "Prepare/b" in waiting.performed
    assert "Launch/a" not in waiting.performed
    bad = go_on(world.state, AGAIN, Clear_b=[Cleared(node="b", clean=False, survivors=("7 x",))])
    result = conclude_run(bad.state, timings={}, report="")
    assert (result.exit_code, result.failure and result.failure.node) == (ExitCode.PREFLIGHT, "b")
    assert "Launch/a" not in bad.performed


def test_an_attempt_that_is_stopped_before_its_launch_says_what_it_did_not_clear() -> None:
    """Where nothing was ever started, nothing can be left; what an earlier attempt left can."""
    first = World(request("a", "b"), {"Prepare/b": lambda _: []})
    first.run(STOP)
    nodes = conclude_run(first.state, timings={}, report="").nodes
    assert {(n.state, n.reason) for n in nodes} == {("unused", "no rank was started")}

    silent = {"Follow/a": lambda _: [], "Follow/b": lambda _: []}
    world = World(request("a", "b"), silent)  # type: ignore[arg-type]
    world.run(NodeLost(node="b", problem=GONE))
    stopped = go_on(world.state, AGAIN, STOP, Clear_b=[])
    states = {n.name: n for n in conclude_run(stopped.state, timings={}, report="").nodes}
    assert stopped.concluded
    assert states["b"].state == "dirty"
    assert "earlier attempt may have left processes or files" in states["b"].reason
    assert "no rank was started; verified clean after earlier" in states["a"].reason


def test_a_node_that_a_takeover_cannot_reach_is_lost() -> None:
    """The others are stopped and swept; nobody waits for it."""
    world = lapsed()
    failed = Failed(node="b", phase=Phase.CONNECT, problem=GONE)
    taken = go_on(world.state, TAKEN, Connect_b=[failed], Follow_a=())
    states = {n.name: n.state for n in conclude_run(taken.state, timings={}, report="").nodes}
    assert taken.concluded
    assert states == {"a": "stopped", "b": "lost"}


def test_what_another_run_holds_refuses_the_run_with_75() -> None:
    held = Occupied(node="b", holder="run other of me@here since 12:00 (gpu-0)")
    world = World(request("a", "b"), {"Reserve": lambda _: [held]})
    world.run()
    result = conclude_run(world.state, timings={}, report="")
    assert result.exit_code is ExitCode.BUSY
    assert result.failure is not None
    assert "run other" in result.failure.cause
    assert "Launch/a" not in world.performed


def test_a_rank_without_a_known_end_is_no_success() -> None:
    """A supervisor that concludes without telling how its rank ended proves nothing."""
    quiet = [NodeConcluded(node="a", clean=True, why="finished")]
    world = World(request("a"), {"Follow/a": lambda _: quiet})
    world.run()
    result = conclude_run(world.state, timings={}, report="")
    assert (result.status, result.exit_code) == (Status.FAILED, ExitCode.RUN_FAILED)
    assert result.failure is not None
    assert result.failure.id == "OR-RUN-002"


@pytest.mark.parametrize(
    "event",
    [
        Launched(node="a"),
        RankExited(node="a", rank=0, outcome=Exited(0), at=1000.0),
        Collected(node="a", files=1, bytes=1),
        Swept(node="a", clean=True),
    ],
)
def test_a_repeated_event_is_no_news(event: Event) -> None:
    """The very same state and no action: it is neither journaled nor shown."""
    world = World(request("a"))
    world.run()
    again, actions = step(world.state, event)
    assert again is world.state
    assert actions == ()


def test_a_report_is_counted_once_by_its_position() -> None:
    world = World(request("a"), {"Follow/a": lambda _: []})
    world.run()
    for position, value in [(10, 1.0), (20, 2.0), (20, 2.0), (10, 1.0)]:
        reported = Reported(
            node="a", rank=0, name="x", value=value, unit="", step=None, position=position
        )
        world.state, _ = step(world.state, reported)
    assert world.state.figures["x"].value == 2.0
    assert world.state.positions == {("a", 0): 20}


def test_actions_that_name_no_node_have_an_identity_too() -> None:
    actions: list[Action] = [Connect(node="a"), Clear(node="a")]
    assert [action_identity(action) for action in actions] == ["Connect/a", "Clear/a"]


def test_what_could_not_be_brought_home_is_tried_again() -> None:
    """The disk here was full, or the link broke: a takeover collects, and sweeps, that node anew;
    the others stay as they were, and the run comes to its good end.
    """
    full = Problem(id="OR-STORE-011", message="no space")
    failed = [Failed(node="b", phase=Phase.COLLECT, problem=full)]
    world = World(request("a", "b"), {"Collect/b": lambda _: failed})
    world.run()
    before = conclude_run(world.state, timings={}, report="")
    assert (before.status, before.exit_code) == (Status.FAILED, ExitCode.BUSY)
    taken = go_on(world.state, TAKEN)
    after = conclude_run(taken.state, timings={}, report="")
    assert (after.status, after.exit_code) == (Status.SUCCEEDED, ExitCode.DONE)
    verbs = {verb for verb in taken.performed if verb.startswith(("Collect", "Sweep", "Launch"))}
    assert verbs == {"Collect/b", "Sweep/b"}
