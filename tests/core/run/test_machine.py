"""The state machine in an obedient and in a hostile world."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.base.codec import from_json, to_json
from orchestrator.core.base.errors import ExitCode
from orchestrator.core.base.outcome import Exited, Signalled
from orchestrator.core.base.problem import Problem
from orchestrator.core.model.workload import Gate, Metric, Workload
from orchestrator.core.run.actions import Action, Follow, Reach, Stop
from orchestrator.core.run.connectivity import Reached, RendezvousOffered
from orchestrator.core.run.events import (
    Begun,
    DeadlinePassed,
    Event,
    Failed,
    NodeConcluded,
    NodeLost,
    Phase,
    RankExited,
    RankStarted,
    StopKind,
    StopRequested,
    Swept,
)
from orchestrator.core.run.kit_reports import Reported
from orchestrator.core.run.machine import action_identity, current_phase, step
from orchestrator.core.run.state import new_state
from orchestrator.core.verdict.result import Status, Verdict
from orchestrator.core.verdict.verdict import conclude_run
from tests.core.world import World, request, step_twice

PROBLEM = Problem(id="OR-SSH-001", message="no answer", remedy="ssh b true")


def verdict(world: World) -> tuple[Status, ExitCode]:
    result = conclude_run(world.state, timings={}, report="")
    return result.status, result.exit_code


def kill(rank: int, at: float) -> object:
    """A reply to Follow: the node's rank starts, and is killed at ``at``."""

    def reply(action: Action) -> list[Event]:
        assert isinstance(action, Follow)
        node = action.node
        return [
            RankStarted(node=node, rank=rank, pid=rank),
            RankExited(node=node, rank=rank, outcome=Signalled(9), at=at, last_line="step 7"),
        ]

    return reply


def silence(action: Action) -> list[Event]:
    del action
    return []


def test_an_undisturbed_run_goes_through_every_phase_once() -> None:
    """Each node is connected, probed, synced, prepared, launched, collected and swept exactly
    once.
    """
    world = World(request("a", "b", "c"))
    world.run()

    assert world.concluded
    assert len(world.performed) == len(set(world.performed))
    for node in "abc":
        for action in ("Connect", "Probe", "Sync", "Prepare", "Launch", "Collect", "Sweep"):
            assert f"{action}/{node}" in world.performed
    assert "Reach/a" not in world.performed
    assert {"Reach/b", "Reach/c"} <= set(world.performed)
    assert verdict(world) == (Status.SUCCEEDED, ExitCode.DONE)
    assert world.state.plan is not None
    assert world.state.plan.world_size == 3


def test_nothing_is_launched_before_every_node_is_ready_and_reachable() -> None:
    world = World(request("a", "b"))
    world.run()
    launch = world.performed.index("Launch/a")
    for earlier in ("Sync/b", "Prepare/b", "Reach/b"):
        assert world.performed.index(earlier) < launch


def test_an_unreachable_node_refuses_the_run_with_exit_4() -> None:
    """Without min_nodes every selected node is needed; nothing is launched."""
    failed = Failed(node="b", phase=Phase.CONNECT, problem=PROBLEM)
    world = World(request("a", "b"), {"Connect/b": lambda _: [failed]})
    world.run()

    result = conclude_run(world.state, timings={}, report="")
    assert (result.status, result.exit_code) == (Status.FAILED, ExitCode.PREFLIGHT)
    assert result.failure is not None
    assert (result.failure.node, result.failure.id) == ("b", "OR-SSH-001")
    assert not any(identity.startswith("Launch") for identity in world.performed)


def test_min_nodes_lets_the_run_go_on_without_a_bad_node() -> None:
    failed = Failed(node="b", phase=Phase.CONNECT, problem=PROBLEM)
    world = World(request("a", "b", "c", min_nodes=2), {"Connect/b": lambda _: [failed]})
    world.run()

    result = conclude_run(world.state, timings={}, report="")
    assert result.status is Status.SUCCEEDED
    assert {n.name: n.state for n in result.nodes} == {"a": "used", "b": "excluded", "c": "used"}
    assert result.world_size == 2


def test_the_first_failing_rank_is_named_and_every_node_is_stopped_and_swept() -> None:
    """Rank 1's earlier death is the cause, although rank 0's failure was heard of first."""
    replies = {"Follow/a": kill(0, at=1002.0), "Follow/b": kill(1, at=1001.0)}
    world = World(request("a", "b"), replies)  # type: ignore[arg-type]
    world.run()

    result = conclude_run(world.state, timings={}, report="")
    assert result.exit_code is ExitCode.RUN_FAILED
    assert result.failure is not None
    assert (result.failure.node, result.failure.rank) == ("b", 1)
    assert "SIGKILL" in result.failure.cause
    assert result.failure.last_line == "step 7"
    assert result.failure.others == ()  # rank 0 failed by itself, nobody stopped it
    assert {"Stop/a/10", "Stop/b/10", "Sweep/a", "Sweep/b"} <= set(world.performed)


@pytest.mark.parametrize(
    "line, id, cause",
    [
        ("MY-MODEL-001: no such model: x", "MY-MODEL-001", "no such model: x"),
        ("MY-MODEL-002: nobody declared it", "OR-RUN-001", "rank 1 on b exited with code 3"),
        ("it said MY-MODEL-001: x", "OR-RUN-001", "rank 1 on b exited with code 3"),
    ],
)
def test_a_rank_may_name_a_failure_that_its_workload_declares(
    line: str, id: str, cause: str
) -> None:
    def reply(action: Action) -> list[Event]:
        return [RankExited(node="b", rank=1, outcome=Exited(3), at=1001.0, last_line=line)]

    declared = {"MY-MODEL-001": "name another model"}
    workload = Workload(name="job", source="-", folder="/job", entry="job.py", failures=declared)
    world = World(request("a", "b", workload=workload), {"Follow/b": reply})
    world.run()

    failure = conclude_run(world.state, timings={}, report="").failure
    assert failure is not None
    assert (failure.id, failure.cause) == (id, cause)
    assert (failure.node, failure.rank, failure.last_line) == ("b", 1, line)
    assert (failure.remedy == "name another model") == (id in declared)


def test_ranks_that_we_stopped_are_never_the_cause() -> None:
    def reply(action: Action) -> list[Event]:
        stopped = RankExited(node="a", rank=0, outcome=Signalled(15), at=1000.5, by_us=True)
        return [stopped]

    world = World(request("a", "b"), {"Follow/a": reply, "Follow/b": kill(1, 1001.0)})  # type: ignore[dict-item]
    world.run()
    result = conclude_run(world.state, timings={}, report="")
    assert result.failure is not None
    assert result.failure.rank == 1


def test_a_lost_node_fails_the_run_and_stops_the_others() -> None:
    lost = NodeLost(node="b", problem=Problem(id="OR-LINK-001", message="silent for 15 s"))
    world = World(request("a", "b"), {"Follow/a": silence, "Follow/b": silence})
    world.run(lost)

    result = conclude_run(world.state, timings={}, report="")
    assert world.concluded
    assert (result.exit_code, result.failure and result.failure.node) == (ExitCode.RUN_FAILED, "b")
    assert "Stop/a/10" in world.performed
    assert "Sweep/b" not in world.performed


def test_a_lost_node_is_told_with_what_clears_it_later() -> None:
    problem = Problem(id="OR-LINK-001", message="silent for 15 s", remedy="ssh -F there b true")
    world = World(request("a", "b"), {"Follow/a": silence, "Follow/b": silence})
    world.run(NodeLost(node="b", problem=problem))
    failure = conclude_run(world.state, timings={}, report="").failure

    assert failure is not None
    assert failure.remedy == (
        "ssh -F there b true; once b answers again, orchestrate stop r1 ends and verifies what is "
        "left there"
    )


@pytest.mark.parametrize(
    "by,code", [("SIGINT", ExitCode.INTERRUPTED), ("SIGTERM", ExitCode.TERMINATED)]
)
def test_a_stop_request_stops_and_sweeps_every_node(by: str, code: ExitCode) -> None:
    world = World(request("a", "b"), {"Follow/a": silence, "Follow/b": silence})
    world.run(StopRequested(kind=StopKind.GRACEFUL, by=by, at=2000.0))
    assert world.concluded
    assert verdict(world) == (Status.STOPPED, code)
    assert {"Stop/a/10", "Stop/b/10", "Sweep/a", "Sweep/b"} <= set(world.performed)


def test_a_second_stop_request_kills_without_grace() -> None:
    def deaf(action: Action) -> list[Event]:
        assert isinstance(action, Stop)
        return [] if action.grace_s else [NodeConcluded(node=action.node, clean=True)]

    replies = {"Follow/a": silence, "Stop/a/10": deaf, "Stop/a/0": deaf}
    world = World(request("a"), replies)  # type: ignore[arg-type]
    world.run(
        StopRequested(kind=StopKind.GRACEFUL, by="SIGINT", at=2000.0),
        StopRequested(kind=StopKind.KILL, by="SIGINT", at=2001.0),
    )
    assert world.performed.index("Stop/a/10") < world.performed.index("Stop/a/0")
    assert world.concluded


def test_a_stop_request_before_launch_concludes_at_once() -> None:
    world = World(request("a"), {"Sync/a": lambda _: []})
    world.run(StopRequested(kind=StopKind.GRACEFUL, by="SIGINT", at=2000.0))
    assert world.concluded
    assert "Launch/a" not in world.performed


def test_nodes_that_cannot_reach_the_head_are_named_before_launch() -> None:
    def refused(action: Action) -> list[Event]:
        assert isinstance(action, Reach)
        return [Reached(node=action.node, addresses=(), errors=("timed out",))]

    world = World(request("a", "b", "c"), {"Reach/c": refused})
    world.run()
    result = conclude_run(world.state, timings={}, report="")
    assert result.exit_code is ExitCode.PREFLIGHT
    assert result.failure is not None
    assert result.failure.id == "OR-NET-001"
    assert result.failure.cause.startswith("c cannot open a TCP connection to a")
    assert not any(identity.startswith("Launch") for identity in world.performed)


def test_a_run_that_outlasts_its_time_is_stopped_with_exit_124() -> None:
    world = World(request("a"), {"Follow/a": silence})
    world.run(DeadlinePassed(phase=Phase.WATCH, after_s=5.0))
    assert verdict(world) == (Status.FAILED, ExitCode.TIMED_OUT)
    assert "Sweep/a" in world.performed


def test_a_clean_up_that_does_not_end_leaves_the_node_as_lost() -> None:
    """Every phase after launch ends: a node that cannot be swept is reported, not waited for."""
    world = World(request("a"), {"Sweep/a": lambda _: []})
    world.run(DeadlinePassed(phase=Phase.CLEAN, after_s=30.0))
    assert world.concluded
    assert conclude_run(world.state, timings={}, report="").nodes[0].state == "lost"


def test_a_run_is_over_when_every_node_is_swept() -> None:
    """Not when the first one is."""
    world = World(request("a", "b"), {"Sweep/b": lambda _: []})
    world.run()
    assert world.state.nodes["a"].swept is not None
    assert not world.concluded


def test_a_stop_reaches_a_node_whose_launch_is_under_way() -> None:
    """Nobody waits for the answer to a launch before the node is told to stop."""
    world = World(request("a", "b"), {"Launch/b": silence, "Follow/a": silence})
    world.run(StopRequested(kind=StopKind.GRACEFUL, by="SIGINT", at=2000.0))
    assert {"Stop/a/10", "Stop/b/10"} <= set(world.performed)
    assert world.concluded


def test_survivors_make_a_node_dirty() -> None:
    swept = Swept(node="a", clean=False, survivors=("4711 python (D)",))
    world = World(request("a"), {"Sweep/a": lambda _: [swept]})
    world.run()
    node = conclude_run(world.state, timings={}, report="").nodes[0]
    assert (node.state, node.reason) == ("dirty", "still running: 4711 python (D)")


@pytest.mark.parametrize(
    "value,verdict_,code",
    [
        (0.4, Verdict.PASS, ExitCode.DONE),
        (0.6, Verdict.FAIL, ExitCode.RUN_FAILED),
        (float("nan"), Verdict.INVALID, ExitCode.RUN_FAILED),
        (None, Verdict.NOT_RUN, ExitCode.RUN_FAILED),
    ],
)
def test_a_required_metric_gates_the_run(
    value: float | None, verdict_: Verdict, code: ExitCode
) -> None:
    """Missing and invalid figures are never a pass."""
    metric = Metric(name="loss", unit="nats", required=True, gate=Gate(max=0.5))
    workload = Workload(name="w", source="-", folder="/w", entry="w.py", metrics={"loss": metric})
    world = World(request("a", workload=workload))
    world.run()
    if value is not None:
        reported = Reported(node="a", rank=0, name="loss", value=value, unit="nats", step=None)
        world.state, _ = step(world.state, reported)
    result = conclude_run(world.state, timings={}, report="")
    assert (result.metrics["loss"].verdict, result.exit_code) == (verdict_, code)
    if result.failure is not None:
        ranks = "" if value is None else " --ranks 0"
        assert result.failure.remedy.startswith(f"orchestrate logs r1{ranks} shows what")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_of_a_figure_that_several_ranks_report_the_lowest_ranks_counts(
    order: tuple[int, ...],
) -> None:
    """In whatever order they are heard; its own later value replaces an earlier one."""
    world = World(request("a", "b", "c"))
    world.run()
    for rank in (*order, *order):
        value = 10.0 * rank + len(world.state.figures)
        reported = Reported(
            node="abc"[rank], rank=rank, name="loss", value=value, unit="", step=None
        )
        world.state, _ = step(world.state, reported)
    figure = world.state.figures["loss"]
    assert (figure.rank, figure.value) == (0, 1.0)


def test_journal_replay_gives_the_same_state_and_actions() -> None:
    """Events survive JSON; replaying them issues the same actions in the same order."""
    world = World(request("a", "b"), {"Follow/b": kill(1, 1001.0)})  # type: ignore[dict-item]
    world.run()
    state = new_state(world.state.request)
    issued: list[str] = []
    for event, _ in world.log:
        again = from_json(Event, to_json(event))
        assert again == event
        state, actions = step(state, again)
        issued += [action_identity(action) for action in actions]
    assert issued == world.performed
    assert state == world.state


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_order_of_answers_and_any_single_fault_comes_to_a_verdict(data: st.DataObject) -> None:
    """Answers may arrive in any order, twice, with one fault anywhere: the run ends, and no action
    is issued twice."""
    world = World(request("a", "b", "c"))
    queue: list[Event] = [Begun()]
    fault_at = data.draw(st.integers(0, 40))
    for tick in range(400):
        if tick == fault_at:
            queue.append(data.draw(st.sampled_from(_FAULTS)))
        if not queue:
            if world.concluded:
                break
            current = current_phase(world.state)
            queue.append(DeadlinePassed(phase=current, after_s=1.0))
        event = queue.pop(data.draw(st.integers(0, len(queue) - 1)))
        if data.draw(st.integers(0, 9)) == 0:
            queue.append(event)
        world.state, actions = step_twice(world.state, event)
        for action in actions:
            world.performed.append(action_identity(action))
            queue.extend(world.answer(action))
    assert world.concluded
    assert len(world.performed) == len(set(world.performed))
    result = conclude_run(world.state, timings={}, report="")
    assert (result.exit_code is ExitCode.DONE) == (result.status is Status.SUCCEEDED)


_FAULTS: list[Event] = [
    Failed(node="b", phase=Phase.SYNC, problem=PROBLEM),
    Failed(node="b", phase=Phase.LAUNCH, problem=PROBLEM),
    Failed(node="c", phase=Phase.REACH, problem=PROBLEM),
    Failed(node="c", phase=Phase.COLLECT, problem=PROBLEM),
    NodeLost(node="a", problem=PROBLEM),
    StopRequested(kind=StopKind.GRACEFUL, by="SIGINT", at=1.0),
    StopRequested(kind=StopKind.KILL, by="SIGTERM", at=1.0),
    RankExited(node="b", rank=1, outcome=Exited(3), at=999.0),
]


def test_a_listener_that_died_with_its_link_is_offered_again_once() -> None:
    """Refused, not unheard: the head offers another port; a network that stays closed is named."""

    def refused(action: Action) -> list[Event]:
        return [Reached(node=action.node, addresses=(), errors=("Connection refused",))]  # type: ignore[union-attr]

    again = {"OfferRendezvous/a/2": lambda _: [RendezvousOffered(node="a", port=29556)]}
    world = World(request("a", "b"), {"Reach/b": refused, **again})  # type: ignore[dict-item]
    world.run()
    assert verdict(world) == (Status.SUCCEEDED, ExitCode.DONE)
    assert world.state.plan is not None
    assert world.state.plan.rendezvous is not None
    assert world.state.plan.rendezvous.port == 29556
    closed = World(request("a", "b"), {"Reach/b": refused, "Reach/b/2": refused, **again})  # type: ignore[dict-item]
    closed.run()
    assert verdict(closed) == (Status.FAILED, ExitCode.PREFLIGHT)
