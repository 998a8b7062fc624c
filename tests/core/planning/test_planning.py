"""The plan as a pure function: ranks, GPUs, launchers, environment, exclusions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.facts import Hca, Interface
from orchestrator.core.model.inventory import Cluster, GpuSpec
from orchestrator.core.model.plan import Plan, Rendezvous
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import Job, Per, Ranks, Shape, Workload
from orchestrator.core.planning.planning import (
    Refusal,
    assumed_finding,
    make_plan,
    rendezvous_candidates,
)
from tests.core.world import facts, node_spec, request


def found(name: str, *, gpus: int = 0, host_id: str = "", torch: str = "2.13.0") -> NodeFinding:
    return NodeFinding(
        facts=facts(name, gpus=gpus, host_id=host_id),
        interpreter="/env/bin/python",
        modules={"torch": torch} if torch else {},
    )


def planned(
    asked: RunRequest, *findings: NodeFinding, rendezvous: Rendezvous | None = None
) -> Plan:
    made = make_plan(asked, {f.facts.node: f for f in findings}, {}, rendezvous)
    assert isinstance(made, Plan)
    return made


def by_direct(*names: str) -> RunRequest:
    """A request as this version makes it."""
    return replace(request(*names), script_launcher="direct")


@given(st.lists(st.integers(0, 8), min_size=1, max_size=6))
def test_ranks_are_dense_and_in_inventory_order(gpus: list[int]) -> None:
    """One rank per GPU, one on a node without; global ranks count up without a gap."""
    counts = {f"n{i}": count for i, count in enumerate(gpus)}
    asked = request(*counts)
    specs = tuple(node_spec(name, GpuSpec(count=count)) for name, count in counts.items())
    asked = replace(asked, cluster=replace(asked.cluster, nodes=specs))
    made = planned(asked, *(found(name, gpus=count) for name, count in counts.items()))
    ranks = [rank for node in made.nodes for rank in node.ranks]
    assert ranks == list(range(made.world_size))
    assert [len(node.ranks) for node in made.nodes] == [g or 1 for g in gpus]


def test_names_of_one_machine_share_its_gpus_and_cpus() -> None:
    both = [found(name, gpus=4, host_id="same") for name in ("a", "b")]
    made = planned(request("a", "b"), *both)
    assert [node.gpus for node in made.nodes] == [(0, 1), (2, 3)]
    visible = [v.value for n in made.nodes for v in n.env if v.name == "CUDA_VISIBLE_DEVICES"]
    assert visible == ["0,1", "2,3"]
    threads = [v.value for n in made.nodes for v in n.env if v.name == "OMP_NUM_THREADS"]
    assert threads == ["2", "2"]


def test_declared_gpu_subsets_are_respected() -> None:
    asked = request("a")
    spec = node_spec("a", GpuSpec(indices=(1, 3)))
    asked = replace(asked, cluster=replace(asked.cluster, nodes=(spec,)))
    made = planned(asked, found("a", gpus=4))
    assert made.head.gpus == (1, 3)
    assert any(v.name == "CUDA_VISIBLE_DEVICES" and v.value == "1,3" for v in made.head.env)


def test_a_node_with_fewer_gpus_than_declared_is_refused_with_the_count() -> None:
    asked = request("a")
    asked = replace(
        asked, cluster=replace(asked.cluster, nodes=(node_spec("a", GpuSpec(count=8)),))
    )
    refusal = make_plan(asked, {"a": found("a", gpus=7)}, {})
    assert isinstance(refusal, Refusal)
    assert "declares 8 GPUs, found 7" in refusal.problem.message


def test_ranks_of_different_pythons_are_warned_about() -> None:
    """What one pickles the other may not read."""
    one, other = found("n1"), found("n2")
    one = replace(one, modules={**(one.modules or {}), "python": "3.11"})
    other = replace(other, modules={**(other.modules or {}), "python": "3.9"})

    warnings = planned(request("n1", "n2"), one, other).warnings

    assert any("python differs between nodes" in warning for warning in warnings)


def test_a_missing_module_is_named() -> None:
    workload = Workload(name="w", source="-", folder="/w", entry="w.py", modules=("torch", "peft"))
    refusal = make_plan(request("a", workload=workload), {"a": found("a")}, {})
    assert isinstance(refusal, Refusal)
    assert refusal.problem.message == "a: /env/bin/python lacks peft"


def test_launchers_are_chosen_with_a_reason() -> None:
    script = planned(by_direct("a"), found("a"))
    assert (script.launcher, script.head.processes[0].label) == ("direct", "rank-0")
    assert "variables that torchrun sets" in script.launcher_reason
    bare = planned(request("a"), found("a", torch=""))
    assert bare.launcher == "direct"
    assert "torch is not installed" in bare.launcher_reason
    program = Workload(name="date", source="-", folder="/w", program=("date", "-u"))
    plain = planned(request("a", "b", workload=program), found("a"), found("b"))
    assert plain.launcher == "command"
    assert [p.argv for n in plain.nodes for p in n.processes] == [("date", "-u")] * 2


@pytest.mark.parametrize("name", ["PET_MAX_RESTARTS", "TORCHELASTIC_ENABLE_FILE_TIMER"])
def test_who_sets_what_torchrun_reads_gets_torchrun(name: str) -> None:
    made = planned(replace(by_direct("a"), env={name: "1"}), found("a"))
    assert made.launcher == "torchrun"
    assert made.launcher_reason == f"{name} is set, which torchrun reads"


def test_a_users_choice_of_how_collectives_fail_is_not_replaced() -> None:
    """What torchrun sets only where nobody else did."""
    name = "TORCH_NCCL_ASYNC_ERROR_HANDLING"
    for asked in (by_direct("a"), replace(by_direct("a"), env={name: "3"})):
        head = planned(asked, found("a")).head
        values = [v.value for v in (*head.env, *head.processes[0].env) if v.name == name]
        assert values == [asked.env.get(name, "1")]


def test_a_node_without_ray_is_left_out_only_where_ray_starts_the_ranks() -> None:
    asked = replace(request("a"), launcher="ray")
    refusal = make_plan(asked, {"a": found("a")}, {})
    assert isinstance(refusal, Refusal)
    assert refusal.problem.message == "a: /env/bin/python lacks ray"
    assert planned(request("a"), found("a")).launcher == "torchrun"


def test_ray_numbers_leased_workers_as_manual_does() -> None:
    """They are no world, on no node; under torchrun each node's ranks have to be one."""
    workload = Workload(name="w", source="-", folder="/w", entry="w.py", shape=Shape.DIVISIBLE)
    asked = request("a", "b", workload=workload)
    made = {}
    for launcher in ("manual", "ray", "torchrun"):
        findings = (found("a", gpus=2), found("b", gpus=2))
        findings = tuple(replace(f, modules={**f.modules, "ray": "2"}) for f in findings)
        made[launcher] = planned(replace(asked, launcher=launcher), *findings)
    env = {name: {v.name for v in p.node("b").env} for name, p in made.items()}
    assert "ORCHESTRATE_SAMPLES" in env["ray"] & env["manual"]
    assert "ORCHESTRATE_FIRST_RANK" in env["torchrun"]
    assert "ORCHESTRATE_FIRST_RANK" not in env["ray"] | env["manual"]
    assert not made["ray"].meets
    assert any("RANK=2," in word for word in made["ray"].node("b").processes[0].argv)


@pytest.mark.parametrize(
    "launcher, ranks, collectives",
    [("auto", 2, False), ("auto", 1, True), ("torchrun", 2, True), ("command", 2, True)],
)
def test_work_without_collectives_gets_none_of_their_variables(
    launcher: str, ranks: int, collectives: bool
) -> None:
    """Leased workers of one GPU each know of no others; one that has both GPUs may use NCCL."""
    workload = Workload(name="w", source="-", folder="/w", entry="w.py", shape=Shape.DIVISIBLE)
    asked = replace(
        request("a", "b", workload=workload),
        launcher=launcher,
        ranks_per_node=ranks,
        env={"NCCL_ALGO": "Tree"},
    )

    made = planned(asked, found("a", gpus=2), found("b", gpus=2))

    for share in made.nodes:
        names = {v.name for v in share.env if v.name.startswith(("NCCL", "TORCH_"))}
        assert "NCCL_ALGO" in names  # what users set goes to the ranks in any case
        assert bool(names - {"NCCL_ALGO"}) == collectives


def test_torchrun_is_given_the_planned_world() -> None:
    rendezvous = Rendezvous(address="10.0.0.1", port=29501, interfaces=(("b", "eth0"),))
    made = planned(request("a", "b"), found("a", gpus=2), found("b", gpus=2), rendezvous=rendezvous)
    argv = made.node("b").processes[0].argv
    assert "--nnodes=2" in argv
    assert "--node-rank=1" in argv
    assert "--nproc-per-node=2" in argv
    assert "--master-addr=10.0.0.1" in argv
    assert "--master-port=29501" in argv
    names = {v.name: v.value for v in made.node("b").env}
    assert names["NCCL_SOCKET_IFNAME"] == "=eth0"
    assert names["GLOO_SOCKET_IFNAME"] == "eth0"
    assert not any(v.name == "NCCL_SOCKET_IFNAME" for v in made.node("a").env)


def test_the_users_environment_wins_and_the_replaced_value_stays_visible() -> None:
    asked = request("a")
    spec = replace(node_spec("a"), env={"OMP_NUM_THREADS": "1"})
    asked = replace(asked, cluster=replace(asked.cluster, nodes=(spec,)))
    variable = next(v for v in planned(asked, found("a")).head.env if v.name == "OMP_NUM_THREADS")
    assert (variable.value, variable.origin) == ("1", "user")
    assert "would have set 8" in variable.reason


def test_only_active_infiniband_ports_are_offered_by_exact_name() -> None:
    ports = (
        Hca(name="mlx5_1", port=1, state="ACTIVE", link_layer="InfiniBand", rate_gbit=400),
        Hca(name="mlx5_10", port=1, state="DOWN", link_layer="InfiniBand"),
    )
    one = found("a", gpus=1)
    one = replace(one, facts=replace(one.facts, hcas=ports))
    made = planned(request("a", "b"), one, found("b", gpus=1))
    hcas = [v.value for v in made.head.env if v.name == "NCCL_IB_HCA"]
    assert hcas == ["=mlx5_1"]
    assert [(r.rung, r.intent) for r in made.ladder] == [
        ("nccl-ib", "use"),
        ("nccl-socket", "next"),
    ]


def test_an_offline_plan_says_that_it_assumes() -> None:
    spec = node_spec("a", GpuSpec(count=8, type="H100"))
    cluster = Cluster(name="c", source="c.yaml", nodes=(spec,))
    workload = Workload(name="w", source="-", folder="/w", entry="w.py", modules=("torch",))
    asked = RunRequest(run_id="r", cluster=cluster, job=Job(workload=workload), entry="w/w.py")
    made = make_plan(asked, {"a": assumed_finding(spec)}, {})
    assert isinstance(made, Plan)
    assert made.assumed
    assert made.world_size == 8
    assert "--nproc-per-node=8" in made.head.processes[0].argv


def test_per_node_workloads_get_one_rank_per_node() -> None:
    workload = Workload(name="w", source="-", folder="/w", entry="w.py", ranks=Ranks(per=Per.NODE))
    made = planned(request("a", workload=workload), found("a", gpus=8))
    assert made.world_size == 1


def test_rendezvous_addresses_prefer_the_one_ssh_came_in_by() -> None:
    base = facts("a", address="192.0.2.7")
    fast = Interface(name="ib0", up=True, addresses=("10.9.0.1", "fe80::1"), speed_mbit=400_000)
    down = Interface(name="eth9", up=False, addresses=("10.8.0.1",))
    more = replace(base, interfaces=(*base.interfaces, fast, down))
    assert rendezvous_candidates(more, alone=False) == ("192.0.2.7", "10.9.0.1")
    assert rendezvous_candidates(more, alone=True) == ("127.0.0.1",)


@pytest.mark.parametrize(
    "torch,names",
    [
        ("2.10.1+cu128", {"TORCH_NCCL_TRACE_BUFFER_SIZE"}),
        ("2.11.0", {"TORCH_FR_BUFFER_SIZE"}),
        ("unknown", {"TORCH_NCCL_TRACE_BUFFER_SIZE", "TORCH_FR_BUFFER_SIZE"}),
    ],
)
def test_the_flight_recorder_is_named_as_this_torch_knows_it(torch: str, names: set[str]) -> None:
    """torch 2.11 warns on every rank's standard error of the older name."""
    made = planned(request("a"), found("a", gpus=1, torch=torch))
    assert {v.name for v in made.head.env if v.name.endswith("BUFFER_SIZE")} == names


def test_flight_records_lie_in_the_attempt_and_can_be_asked_for() -> None:
    """So that a hang is explained from them, and nothing of them stays behind elsewhere."""
    made = planned(request("a"), found("a", gpus=1, torch="2.11.0"))
    env = {v.name: v for v in made.head.env}
    assert env["TORCH_FR_DUMP_TEMP_FILE"].value == "{attempt}/flight_record_rank_"
    assert env["TORCH_NCCL_DEBUG_INFO_PIPE_FILE"].value == "{attempt}/flight_pipe_rank_"
    assert all(v.origin == "facts" and v.reason for v in env.values() if v.name.startswith("TORCH"))
    assert "TORCH_NCCL_DEBUG_INFO_TEMP_FILE" not in env
    assert not any("TORCH" in v.name for v in planned(request("a"), found("a")).head.env)
