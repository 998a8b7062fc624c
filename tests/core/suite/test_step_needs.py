"""What a step cannot run without is found and named before the run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.plan import Plan
from orchestrator.core.planning.planning import make_plan
from orchestrator.core.suite.step_needs import GIB, Equipment, unmet_needs
from orchestrator.core.suite.suite_model import StepNeeds
from tests.core.world import facts, request

FACTS = {
    name: replace(
        facts(name, gpus=4),
        memory_bytes=512 * GIB,
        gpus=tuple(replace(gpu, memory_bytes=80 * GIB) for gpu in facts(name, gpus=4).gpus),
    )
    for name in ("a", "b")
}
FOUND = Equipment(
    facts=FACTS,
    tools={"a": frozenset({"nsys"}), "b": frozenset()},
    packages={"a": frozenset({"torch", "vllm"}), "b": frozenset({"torch"})},
)


def plan() -> Plan:
    findings = {name: NodeFinding(facts=each, interpreter="p") for name, each in FACTS.items()}
    made = make_plan(request("a", "b"), findings, {})
    assert isinstance(made, Plan)
    return made


@pytest.mark.parametrize(
    "needs, reason",
    [
        (StepNeeds(), ""),
        (StepNeeds(nodes=2, gpus=8, gpu_memory_gib=80, memory_gib=512, packages=("torch",)), ""),
        (StepNeeds(nodes=3), "needs 3 nodes, has 2"),
        (StepNeeds(gpus=9), "needs 9 GPUs, has 8"),
        (StepNeeds(gpu_memory_gib=141), "needs GPUs of 141 GiB, the smallest has 80"),
        (
            StepNeeds(memory_gib=1024),
            "needs 1024 GiB of memory, the smallest node has 512",
        ),
        (StepNeeds(tools=("nsys",)), "needs nsys, which is not on the PATH of b"),
        (StepNeeds(tools=("dcgmi",)), "needs dcgmi, which is not on the PATH of a,b"),
        (
            StepNeeds(packages=("vllm", "torch")),
            "needs the package vllm, which the ranks on b do not have",
        ),
    ],
)
def test_what_is_missing_is_named_with_what_is_there(needs: StepNeeds, reason: str) -> None:
    assert unmet_needs(needs, plan(), FOUND) == reason


def test_gpus_that_the_plan_does_not_use_do_not_count() -> None:
    """A cluster whose inventory leaves GPUs out does not have them."""
    cut = replace(plan(), nodes=tuple(replace(node, gpus=(0,)) for node in plan().nodes))

    assert unmet_needs(StepNeeds(gpus=3), cut, FOUND) == "needs 3 GPUs, has 2"
    none = replace(plan(), nodes=tuple(replace(node, gpus=()) for node in plan().nodes))
    assert unmet_needs(StepNeeds(gpus=1, gpu_memory_gib=1), none, FOUND) == "needs 1 GPU, has 0"
    assert unmet_needs(StepNeeds(gpu_memory_gib=1), none, FOUND) == (
        "needs GPUs of 1 GiB, there is none"
    )
