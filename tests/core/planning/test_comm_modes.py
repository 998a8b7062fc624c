"""The ladder: which rung is used, what a fall leads to, and when a run counts as degraded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.errors import ExitCode
from orchestrator.core.base.outcome import Exited, Signalled
from orchestrator.core.base.problem import Problem
from orchestrator.core.model.comm_modes import (
    BETWEEN_NODES,
    CommMode,
    Fallback,
    Intent,
    JobNeeds,
    fallback_chain,
    mode_in_use,
)
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import Shape, Workload
from orchestrator.core.run.actions import Action, Classify, Reach, Serve
from orchestrator.core.run.connectivity import Classified, FabricProbed, Fault, LinksBroken, Reached
from orchestrator.core.run.events import (
    Connected,
    DeadlinePassed,
    Divided,
    Event,
    Failed,
    NodeConcluded,
    NodeLost,
    Phase,
    RankExited,
)
from orchestrator.core.run.late_join import NOT_READY
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.failure_cause import describe_links
from orchestrator.core.verdict.result import Result, Status
from orchestrator.core.verdict.verdict import conclude_run
from tests.core.world import World, request

CUT = "b cannot open a TCP connection to a"


def asked(shape: Shape, *names: str, probe: bool = False) -> RunRequest:
    workload = Workload(name="job", source="-", folder="/job", entry="job.py", shape=shape)
    return replace(request(*names, workload=workload), fabric_probe=probe)


def result_of(state: RunState) -> Result:
    return conclude_run(state, timings={}, report="")


def rungs(result: Result) -> list[tuple[str, str]]:
    return [(rung.rung, rung.outcome) for rung in result.ladder]


def unreached(action: Action) -> Sequence[Event]:
    assert isinstance(action, Reach)
    return [Reached(node=action.node, addresses=(), errors=("timed out",))]


def not_proven(rung: CommMode, reason: str) -> Sequence[Event]:
    return [FabricProbed(rung=rung, ok=False, reason=reason, seconds=4.0)]


grounds = st.builds(
    JobNeeds,
    shape=st.sampled_from(Shape),
    communicates=st.booleans(),
    nodes=st.integers(1, 4),
    lacking=st.sampled_from([(), ("a",), ("a", "b")]),
    ib_ports=st.integers(0, 2),
    assumed=st.booleans(),
)


@given(grounds)
def test_one_rung_is_used_until_all_have_fallen(ground: JobNeeds) -> None:
    """However often the present rung falls, another one is used, each once, and then none."""
    falls: list[Fallback] = []
    seen: list[CommMode] = []
    while (rung := mode_in_use(fallback_chain(ground, falls))) is not None:
        assert rung not in seen
        seen.append(rung)
        falls.append(Fallback(rung=rung, reason="broken", seconds=1.0))

    assert seen
    assert all(r.intent in (Intent.FAILED, Intent.SKIP) for r in fallback_chain(ground, falls))


def test_only_rungs_below_collectives_are_left_to_work_that_declares_them() -> None:
    """Rigid work has nothing below its collectives, and one node no use for rounds."""
    ground = JobNeeds(shape=Shape.RIGID, communicates=True, nodes=2, ib_ports=8)

    assert [r.rung for r in fallback_chain(ground)] == ["nccl-ib", "nccl-socket"]
    rounds = replace(ground, shape=Shape.LOCAL_ROUNDS)
    assert [r.rung for r in fallback_chain(rounds)] == ["nccl-ib", "nccl-socket", "local-rounds"]
    assert [r.rung for r in fallback_chain(replace(rounds, nodes=1))] == ["nccl-local"]


@pytest.mark.parametrize("launcher", ["manual", "direct", "torchrun"])
def test_independent_ranks_never_meet_and_know_their_place(launcher: str) -> None:
    """Whatever launches them, and whatever the network is."""
    ground = JobNeeds(shape=Shape.INDEPENDENT, communicates=True, nodes=2, ib_ports=8)
    assert [(rung.rung, rung.intent) for rung in fallback_chain(ground)] == [("independent", "use")]
    world = World(replace(asked(Shape.INDEPENDENT, "a", "b"), launcher=launcher))
    world.run()

    plan = world.state.require_plan()

    assert not plan.meets
    assert plan.rung == "independent"
    placed = []
    for node in plan.nodes:
        env = {variable.name: variable.value for variable in node.env}
        (process,) = node.processes
        rank = env | {each.name: each.value for each in process.env}
        first, size = env.get("ORCHESTRATE_FIRST_RANK"), env.get("ORCHESTRATE_WORLD_SIZE")
        placed.append((first or rank["RANK"], size or rank["WORLD_SIZE"]))
    assert placed == [("0", "2"), ("1", "2")]


def test_nodes_that_do_not_reach_each_other_train_by_themselves() -> None:
    """No address of the head is reachable: the same command ends well, and says how."""
    world = World(asked(Shape.LOCAL_ROUNDS, "a", "b"), {"Reach/b": unreached})
    result = result_of(world.run())

    assert (result.status, result.exit_code) == (Status.DEGRADED, ExitCode.DONE)
    assert rungs(result) == [("gloo", "failed"), ("local-rounds", "used")]
    assert "b cannot open a TCP connection to a" in result.ladder[0].reason
    assert "Serve/local-rounds" in world.performed
    assert world.state.plan is not None
    assert not world.state.plan.meets


def test_degraded_can_be_asked_to_fail() -> None:
    """``--fail-on degraded`` is exit code 3, and nothing else changes."""
    strict = replace(asked(Shape.LOCAL_ROUNDS, "a", "b"), fail_on_degraded=True)
    result = result_of(World(strict, {"Reach/b": unreached}).run())

    assert (result.status, result.exit_code) == (Status.DEGRADED, ExitCode.DEGRADED)


def test_rigid_work_on_a_broken_fabric_is_refused_with_the_finding() -> None:
    """It is not run in another way than it was written for."""
    refused = {"ProbeFabric/gloo": lambda _: not_proven(CommMode.GLOO, CUT)}
    world = World(asked(Shape.RIGID, "a", "b", probe=True), refused)
    result = result_of(world.run())

    assert result.exit_code is ExitCode.PREFLIGHT
    assert result.failure is not None
    assert (result.failure.id, result.failure.cause) == ("OR-FABRIC-001", CUT)
    assert rungs(result) == [("gloo", "failed")]
    assert not any(name.startswith("Launch/") for name in world.performed)


def test_a_fabric_that_is_not_proven_falls_rung_by_rung() -> None:
    """The probe's time and reason stay with the rung that it was spent on."""
    failing = {"ProbeFabric/gloo": lambda _: not_proven(CommMode.GLOO, CUT)}
    world = World(asked(Shape.LOCAL_ROUNDS, "a", "b", probe=True), failing)
    result = result_of(world.run())

    assert rungs(result) == [("gloo", "failed"), ("local-rounds", "used")]
    assert (result.ladder[0].seconds, result.ladder[0].reason) == (4.0, CUT)
    assert world.performed.count("ProbeFabric/gloo") == 1


def test_a_proven_fabric_is_launched_on() -> None:
    """The probe comes after the rendezvous and before the launch."""
    world = World(asked(Shape.RIGID, "a", "b", probe=True))
    result = result_of(world.run())

    assert result.status is Status.SUCCEEDED
    order = world.performed
    assert order.index("Reach/b") < order.index("ProbeFabric/gloo") < order.index("Launch/a")


def failing_rank(world: World) -> Sequence[Event]:
    return [
        RankExited(node="b", rank=1, outcome=Exited(1), at=world.at, last_line="connection"),
        NodeConcluded(node="b", clean=True),
    ]


def classified(fault: Fault) -> object:
    def answer(action: Action) -> Sequence[Event]:
        assert isinstance(action, Classify)
        if action.attempt > 1:
            return [Classified(attempt=action.attempt, fault=Fault.OTHER, reason="")]
        return [Classified(attempt=action.attempt, fault=fault, reason="b does not reach a")]

    return answer


def run_with_failure(shape: Shape, fault: Fault) -> World:
    """Rank 1 fails in the first attempt; in later ones everything goes well."""
    world = World(asked(shape, "a", "b"))
    follow: list[int] = []

    def follow_b(action: Action) -> Sequence[Event]:
        follow.append(world.state.attempt)
        if len(follow) == 1:
            return failing_rank(world)
        return world.obey(action)

    world.replies |= {"Follow/b": follow_b, "Classify/1": classified(fault)}  # type: ignore[dict-item]
    world.run()
    return world


def test_a_fabric_that_breaks_in_mid_run_means_another_attempt_one_rung_lower() -> None:
    """All nodes are clean before it begins, and the rung that broke is not tried again."""
    world = run_with_failure(Shape.LOCAL_ROUNDS, Fault.FABRIC)
    result = result_of(world.state)

    assert world.state.attempt == 2
    assert (result.status, result.exit_code) == (Status.DEGRADED, ExitCode.DONE)
    assert rungs(result) == [("gloo", "failed"), ("local-rounds", "used")]
    assert world.state.falls[0].started
    assert world.performed.index("Sweep/a") < world.performed.index("Classify/1")


def test_a_failure_of_another_kind_is_the_failure_of_the_run() -> None:
    """A rank that failed by itself would fail on every rung."""
    world = run_with_failure(Shape.LOCAL_ROUNDS, Fault.OTHER)
    result = result_of(world.state)

    assert world.state.attempt == 1
    assert result.status is Status.FAILED
    assert result.failure is not None
    assert (result.failure.node, result.failure.rank) == ("b", 1)


def test_rigid_work_is_never_run_in_another_way() -> None:
    """There is nothing to classify for: no rung is below."""
    world = run_with_failure(Shape.RIGID, Fault.FABRIC)

    assert world.state.attempt == 1
    assert "Classify/1" not in world.performed
    assert result_of(world.state).status is Status.FAILED


def test_links_that_break_end_the_ranks_and_name_themselves() -> None:
    """What ranks say after that is our doing; the links are the cause."""
    world = World(
        asked(Shape.RIGID, "a", "b"), {"Follow/a": lambda _: [], "Follow/b": lambda _: []}
    )
    state = world.run(LinksBroken(links=(("a", "b"),), seconds=15.0, at=2000.0))
    result = result_of(state)

    assert {"Stop/a/10", "Stop/b/10"} <= set(world.performed)
    assert result.failure is not None
    assert result.failure.id == "OR-NET-002"
    assert result.failure.cause.startswith("a does not reach b any more")


def test_a_link_that_is_broken_both_ways_is_told_once() -> None:
    both = (("a", "b"), ("b", "a"), ("a", "c"))
    assert describe_links(both) == "a and b do not reach each other, a does not reach c"
    many = tuple((f"n{number}", "a") for number in range(5))
    assert describe_links(many).endswith("n2 does not reach a (and 2 more links)")


def lost(node: str) -> NodeLost:
    return NodeLost(node=node, problem=Problem(id="OR-LINK-001", message="no sign of life"))


def test_divisible_work_goes_on_without_a_node_that_is_lost() -> None:
    """Complete is what counts; that a node was lost is said first."""
    world = World(asked(Shape.DIVISIBLE, "a", "b"), {"Follow/b": lambda _: [lost("b")]})
    world.replies["Serve/leases"] = lambda _: [Divided(total=4, done=4, final=True)]
    result = result_of(world.run())

    assert (result.status, result.exit_code) == (Status.DEGRADED, ExitCode.DONE)
    assert {node.name: node.state for node in result.nodes} == {"a": "used", "b": "lost"}
    assert result.samples is not None
    assert (result.samples.total, result.samples.done) == (4, 4)
    assert rungs(result) == [("leases", "used")]


@pytest.mark.parametrize(
    "work, id, code",
    [
        (Divided(total=4, done=3, final=True), "OR-WORK-001", ExitCode.BUSY),
        (Divided(total=4, done=4, conflicts=1, final=True), "OR-WORK-002", ExitCode.RUN_FAILED),
        (Divided(total=4, done=3, failed=1, final=True), "OR-WORK-003", ExitCode.RUN_FAILED),
        (Divided(total=4, done=2, failed=1, final=True), "OR-WORK-001", ExitCode.BUSY),
    ],
)
def test_divisible_work_that_is_not_complete_is_no_success(
    work: Divided, id: str, code: ExitCode
) -> None:
    """Missing samples can be resumed; answers that differ are never averaged."""
    world = World(asked(Shape.DIVISIBLE, "a", "b"))
    world.replies["Serve/leases"] = lambda _: [work]
    result = result_of(world.run())

    assert result.exit_code is code
    assert result.failure is not None
    assert result.failure.id == id


def test_workers_that_do_not_end_are_stopped_when_all_samples_are_settled() -> None:
    """A worker that hangs with a sample that somebody else did must not hold up the run."""
    hanging = World(asked(Shape.DIVISIBLE, "a", "b"), {"Follow/b": lambda _: []})
    hanging.replies["Serve/leases"] = lambda _: []
    state = hanging.run(Divided(total=4, done=4, final=True))

    assert "Stop/b/10" in hanging.performed
    assert result_of(state).exit_code is ExitCode.DONE


def test_a_worker_that_dies_does_not_end_the_others() -> None:
    """Its leases go to others: the run is degraded, not failed."""
    world = World(asked(Shape.DIVISIBLE, "a", "b"))

    def dying(_: Action) -> Sequence[Event]:
        return [
            RankExited(node="b", rank=1, outcome=Signalled(9), at=world.at),
            NodeConcluded(node="b", clean=True),
        ]

    world.replies["Follow/b"] = dying
    world.replies["Follow/a"] = lambda _: []
    world.run()
    assert world.state.plan is not None
    state = world.run(
        *world.finish(world.state.plan.node("a")), Divided(total=4, done=4, final=True)
    )
    result = result_of(state)

    assert "Stop/a/10" not in world.performed
    assert result.status is Status.DEGRADED


def test_every_collective_rung_falls_when_nothing_can_be_reached() -> None:
    """No time is spent on a second kind of collective where no connection can be opened."""
    world = World(asked(Shape.LOCAL_ROUNDS, "a", "b"), {"Reach/b": unreached})
    state = world.run()

    assert {fall.rung for fall in state.falls} <= BETWEEN_NODES
    assert any(isinstance(a, Serve) for _, actions in world.log for a in actions)


def test_divisible_work_begins_without_nodes_that_are_slow_and_they_join_it() -> None:
    """``min_nodes`` are enough to begin with; who comes later counts on after the others' ranks."""
    workload = Workload(
        name="job", source="-", folder="/job", entry="job.py", shape=Shape.DIVISIBLE
    )
    world = World(request("a", "b", "c", min_nodes=1, workload=workload))
    world.replies |= {"Connect/b": lambda _: [], "Follow/a": lambda _: [], "Follow/b": lambda _: []}
    world.replies["Connect/c"] = lambda _: [
        NodeLost(node="c", problem=Problem(id="X", message="no"))
    ]
    world.run()
    assert "Launch/a" in world.performed
    assert world.state.plan is not None
    assert {e.node: e.reason for e in world.state.plan.excluded} == {"b": NOT_READY, "c": "no"}

    world.run(Connected(node="b", seconds=9.0))

    assert "Launch/b" in world.performed
    assert [(n.name, n.ranks) for n in world.state.plan.nodes] == [("a", (0,)), ("b", (1,))]
    assert [e.node for e in world.state.plan.excluded] == ["c"]


@pytest.mark.parametrize(
    "answer",
    [
        Failed(node="", phase=Phase.CLASSIFY, problem=Problem(id="X", message="no logs")),
        DeadlinePassed(phase=Phase.CLASSIFY, after_s=60.0),
    ],
)
def test_a_failure_that_cannot_be_explained_is_not_the_fabrics(answer: Event) -> None:
    """The run ends with it rather than waiting for an explanation, or trying on."""
    world = World(asked(Shape.LOCAL_ROUNDS, "a", "b"))
    world.replies |= {"Follow/b": lambda _: failing_rank(world), "Classify/1": lambda _: [answer]}
    result = result_of(world.run())

    assert world.concluded
    assert world.state.attempt == 1
    assert result.status is Status.FAILED


def test_a_probe_that_cannot_be_made_refuses_the_run() -> None:
    """A link that breaks while the fabric is tried is told as such."""
    gone = Failed(node="b", phase=Phase.FABRIC, problem=Problem(id="OR-LINK-001", message="gone"))
    world = World(
        asked(Shape.LOCAL_ROUNDS, "a", "b", probe=True), {"ProbeFabric/gloo": lambda _: [gone]}
    )
    result = result_of(world.run())

    assert result.exit_code is ExitCode.PREFLIGHT
    assert result.failure is not None
    assert result.failure.cause == "gone"


@pytest.mark.parametrize("ranks, argv", [(1, "-u"), (2, "torch.distributed.run")])
def test_ranks_that_start_by_themselves_meet_on_their_own_node_only(ranks: int, argv: str) -> None:
    """Nobody but the node can choose a port for them, and one rank needs none."""
    job = replace(asked(Shape.LOCAL_ROUNDS, "a", "b"), launcher="direct", ranks_per_node=ranks)
    world = World(job, {"Reach/b": unreached})
    plan = world.run().plan

    assert plan is not None
    (process, *others) = plan.nodes[1].processes
    assert argv in process.argv
    assert not others
    names = {variable.name: str(variable.value) for variable in process.env}
    assert "MASTER_ADDR" not in names
    assert all("<" not in value for value in names.values())
