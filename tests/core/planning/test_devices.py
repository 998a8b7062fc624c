"""Which GPUs a plan counts on: what CUDA shows of them, and nodes that should be alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.devices import VARIABLE, visible_gpus
from orchestrator.core.model.facts import Facts, Gpu, MigInstance
from orchestrator.core.model.inventory import GpuSpec
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.planning.planning import Refusal, make_plan, plan_with_joined
from tests.core.world import facts, node_spec, request

SAID = "nvidia-smi ended with 9: the driver does not answer"


def asked(specs: Mapping[str, GpuSpec], env: Mapping[str, str] | None = None) -> RunRequest:
    """Nodes with what the inventory declares of their GPUs; ``env`` as with --env."""
    made = request(*specs)
    nodes = tuple(node_spec(name, spec) for name, spec in specs.items())
    return replace(made, cluster=replace(made.cluster, nodes=nodes), env=dict(env or {}))


def decided(request: RunRequest, *found: Facts) -> Plan | Refusal:
    findings = {
        f.node: NodeFinding(facts=f, interpreter="/bin/python", modules={"torch": "2.13.0"})
        for f in found
    }
    return make_plan(request, findings, {})


def refused(request: RunRequest, *found: Facts) -> str:
    made = decided(request, *found)
    assert isinstance(made, Refusal)
    return f"{made.problem.message}; next: {made.problem.remedy}"


def planned(request: RunRequest, *found: Facts) -> Plan:
    made = decided(request, *found)
    assert isinstance(made, Plan), made
    return made


def shown(made: Plan) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each node's ranks; None = not set."""
    return [
        next((str(v.value) for v in node.env if v.name == VARIABLE), None) for node in made.nodes
    ]


ANY = GpuSpec()
NONE = GpuSpec(count=0)


# ---- nodes that should be alike ------------------------------------------------------------------


@pytest.mark.parametrize("broken_first", [False, True])
def test_a_node_without_gpus_beside_one_with_some_is_refused(*, broken_first: bool) -> None:
    """Not a job for GPUs on CPUs: it is named, with what its driver says and what to do."""
    good, bad = facts("good", gpus=4), replace(facts("bad"), notes=(SAID,))
    order = ("bad", "good") if broken_first else ("good", "bad")
    found = {"good": good, "bad": bad}
    said = refused(asked(dict.fromkeys(order, ANY)), *(found[name] for name in order))
    assert said.startswith(f"bad: shows no GPU: {SAID}")
    assert "--nodes '!bad'" in said
    assert "gpus: 0" in said


def test_a_node_that_never_had_a_driver_is_told_by_the_others() -> None:
    said = refused(asked({"a": ANY, "b": ANY}), facts("a", gpus=4), facts("b"))
    assert said.startswith("b: has no GPU, a has 4")


def test_min_nodes_leaves_it_out() -> None:
    request = asked({"a": ANY, "b": ANY})
    request = replace(request, cluster=replace(request.cluster, min_nodes=1))
    made = planned(request, facts("a", gpus=4), facts("b"))
    assert [node.name for node in made.nodes] == ["a"]
    assert [(e.node, e.reason) for e in made.excluded] == [("b", "has no GPU, a has 4")]


def test_also_a_node_that_comes_late_is_left_out() -> None:
    request = asked({"a": ANY, "b": ANY})
    request = replace(request, cluster=replace(request.cluster, min_nodes=1))
    findings = {
        f.node: NodeFinding(facts=f, interpreter="/bin/python", modules={"torch": "2.13.0"})
        for f in (facts("a", gpus=1), facts("b"))
    }
    first = make_plan(request, {"a": findings["a"]}, {"b": "not ready yet"})
    assert isinstance(first, Plan)
    assert [node.name for node in plan_with_joined(first, request, findings).nodes] == ["a"]


def test_the_only_node_s_dead_driver_is_no_cpu_run() -> None:
    said = refused(asked({"a": ANY}), replace(facts("a"), notes=("NVML: driver not loaded",)))
    assert said.startswith("a: shows no GPU: NVML: driver not loaded")
    empty = replace(facts("a"), driver="570.1")
    assert "has the driver 570.1, but no GPU" in refused(asked({"a": ANY}), empty)


def test_a_gpu_off_the_bus_is_told_unless_the_inventory_does_not_count_on_it() -> None:
    lost = replace(facts("a", gpus=3), lost_gpus=("GPU 3: the driver gives no access",))
    assert "a: GPU 3: the driver gives no access" in refused(asked({"a": ANY}), lost)
    said = refused(asked({"a": GpuSpec(count=4)}), lost)
    assert "declares 4 GPUs, found 3 (GPU 3: the driver gives no access)" in said
    fine = planned(asked({"a": GpuSpec(count=3)}), lost)
    assert (fine.world_size, fine.warnings) == (3, ("a: GPU 3: the driver gives no access",))


def test_what_the_inventory_declares_needs_no_gpu() -> None:
    """gpus: 0 is a decision, and the ladder says whose ranks have none."""
    bad = replace(facts("b"), notes=(SAID,))
    made = planned(asked({"a": ANY, "b": NONE}), facts("a", gpus=2), bad)
    assert [node.gpus for node in made.nodes] == [(0, 1), ()]
    assert made.ladder[0].reason == "no GPU for the ranks of b, so no NCCL"
    assert made.warnings == ("nodes have different numbers of GPUs: a has 2, b has none",)


def test_who_hides_all_gpus_wants_none() -> None:
    bad = replace(facts("b"), notes=(SAID,))
    made = planned(asked({"a": ANY, "b": ANY}, {VARIABLE: ""}), facts("a", gpus=2), bad)
    assert [node.gpus for node in made.nodes] == [(), ()]
    assert made.warnings == (f"a: {VARIABLE}= leaves 0 of 2 GPUs",)
    said = refused(asked({"b": ANY}, {VARIABLE: "1"}), bad)
    assert said.startswith(f"b: shows no GPU: {SAID}")


def test_a_type_that_is_declared_needs_a_gpu() -> None:
    assert "declares H100 GPUs, found none" in refused(
        asked({"a": GpuSpec(type="H100")}), facts("a")
    )


def test_unequal_nodes_are_planned_as_they_are_and_told() -> None:
    other = facts("b", gpus=3)
    other = replace(other, gpus=tuple(replace(gpu, name="NVIDIA A100") for gpu in other.gpus))
    made = planned(asked({"a": ANY, "b": ANY}), facts("a", gpus=4), other)
    assert [node.ranks for node in made.nodes] == [(0, 1, 2, 3), (4, 5, 6)]
    numbers, kinds = made.warnings
    assert numbers == "nodes have different numbers of GPUs: a has 4, b has 3"
    assert kinds.endswith("a has NVIDIA H100 80GB HBM3, b has NVIDIA A100")


def test_more_names_of_one_machine_than_gpus_are_refused() -> None:
    """Each would get none of them, and all would run on CPUs."""
    both = [facts(name, gpus=1, host_id="same") for name in ("a", "b")]
    said = refused(asked({"a": ANY, "b": ANY}), *both)
    assert "2 names of one machine (a, b) cannot divide 1 GPUs" in said


def test_gpus_without_a_driver_are_told() -> None:
    made = planned(asked({"a": ANY}), replace(facts("a"), gpus_on_bus=8))
    assert made.warnings == ("a: 8 NVIDIA GPUs on its PCI bus, but no driver",)


# ---- CUDA_VISIBLE_DEVICES ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text,gpus",
    [("0,1", (0, 1)), ("3,1", (3, 1)), (" 2 ", (2,)), ("", ()), ("-1", ()), ("1,-1,2", (1,))],
)
def test_ranks_are_planned_on_what_the_user_shows_them(text: str, gpus: tuple[int, ...]) -> None:
    """One rank for each, locks for these only; and it is said."""
    made = planned(asked({"a": ANY}, {VARIABLE: text}), facts("a", gpus=4))
    assert (made.head.gpus, made.world_size) == (gpus, len(gpus) or 1)
    assert [lock.name for lock in made.head.locks[: len(gpus)]] == [f"gpu-{i}" for i in gpus]
    assert shown(made) == [text]
    assert made.warnings == (f"a: {VARIABLE}={text} leaves {len(gpus)} of 4 GPUs",)


def test_a_choice_in_the_inventory_is_one_for_that_node() -> None:
    request = asked({"a": ANY, "b": ANY})
    first = replace(request.cluster.nodes[0], env={VARIABLE: "2"})
    cluster = replace(request.cluster, nodes=(first, request.cluster.nodes[1]))
    made = planned(replace(request, cluster=cluster), facts("a", gpus=4), facts("b", gpus=4))
    assert [node.gpus for node in made.nodes] == [(2,), (0, 1, 2, 3)]


def test_what_is_declared_restricts_the_choice() -> None:
    """Ranks are shown the GPUs that this run holds, not others that the variable names."""
    made = planned(asked({"a": GpuSpec(indices=(0, 1))}, {VARIABLE: "1,2"}), facts("a", gpus=4))
    assert (made.head.gpus, shown(made)) == ((1,), ["1"])


@pytest.mark.parametrize(
    "text,said",
    [
        ("7", "names 7, which is not there (found 2 GPUs)"),
        ("0,0", "names GPU 0 twice"),
        ("GPU-none", "names GPU-none, which is not there"),
        ("all", "names all, which is not there"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_refused(text: str, said: str) -> None:
    """CUDA would silently show fewer, or none."""
    found = facts("a", gpus=2)
    assert f"{VARIABLE}={text} {said}" in refused(asked({"a": ANY}, {VARIABLE: text}), found)


def test_gpus_are_named_by_uuid_too() -> None:
    gpus = tuple(Gpu(index=i, name="H100", uuid=f"GPU-{i}{i}aa-bb") for i in range(3))
    found = replace(facts("a"), gpus=gpus)
    assert visible_gpus("GPU-22aa,GPU-00aa-bb", found).gpus == (2, 0)
    assert visible_gpus("GPU-", found).wrong


@given(st.lists(st.integers(0, 7), unique=True, max_size=8), st.integers(1, 8))
def test_what_is_shown_is_what_is_planned(chosen: list[int], count: int) -> None:
    """Whatever is chosen of whatever there is: ranks, GPUs and the variable agree, or it is no."""
    text = ",".join(map(str, chosen))
    made = decided(asked({"a": ANY}, {VARIABLE: text}), facts("a", gpus=count))
    if any(index >= count for index in chosen):
        assert isinstance(made, Refusal)
    else:
        assert isinstance(made, Plan)
        assert made.head.gpus == tuple(chosen)
        assert len(made.head.ranks) == max(1, len(chosen))


def test_the_login_s_choice_is_not_inherited_and_that_is_told() -> None:
    found = replace(facts("a", gpus=4), exports={VARIABLE: "2,3"})
    made = planned(asked({"a": ANY}), found)
    assert made.world_size == 4
    (warning,) = made.warnings
    assert f"the login's {VARIABLE}=2,3 is not inherited: ranks get 4 GPUs" in warning
    assert planned(asked({"a": GpuSpec(indices=(2, 3))}), found).warnings == ()


# ---- MIG -----------------------------------------------------------------------------------------


def divided(count: int) -> Facts:
    """GPUs that MIG divides into two instances each."""
    gpus = tuple(
        Gpu(
            index=i,
            name="H100",
            uuid=f"GPU-{i}",
            mig=True,
            mig_instances=tuple(
                MigInstance(profile="3g.40gb", uuid=f"MIG-{i}{part}") for part in range(2)
            ),
        )
        for i in range(count)
    )
    return replace(facts("a"), gpus=gpus)


def test_ranks_cannot_have_divided_gpus_each() -> None:
    """A process sees one instance: rank 1 would find no device, and NCCL none in common."""
    said = refused(asked({"a": ANY}), divided(2))
    assert "GPU 0 is divided by MIG into 2 instances (3g.40gb)" in said


@pytest.mark.parametrize("text,gpu", [("MIG-11", 1), ("MIG-01,MIG-10", 0), ("MIG-GPU-1/3/0", 1)])
def test_an_instance_that_the_user_names_is_one_rank(text: str, gpu: int) -> None:
    made = planned(asked({"a": ANY}, {VARIABLE: text}), divided(2))
    assert (made.head.gpus, made.world_size, shown(made)) == ((gpu,), 1, [text])


def test_one_rank_may_have_an_instance_and_is_told() -> None:
    made = planned(asked({"a": ANY}), divided(1))
    assert made.world_size == 1
    assert "a process sees one" in made.warnings[0]
    one = replace(asked({"a": ANY}), ranks_per_node=1)
    assert planned(one, divided(2)).world_size == 1
