"""Whether a step can run on what was found of the nodes, before anything is started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.core.base.nodeset import fold_nodeset
from orchestrator.core.model.facts import Facts, Gpu
from orchestrator.core.model.plan import Plan
from orchestrator.core.suite.suite_model import StepNeeds

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What was found: ``facts`` and ``tools`` by node, ``packages`` that the step's ranks can
    import, by node.
    """

    facts: Mapping[str, Facts]
    tools: Mapping[str, frozenset[str]]
    packages: Mapping[str, frozenset[str]]


def unmet_needs(needs: StepNeeds, plan: Plan, found: Equipment) -> str:
    """Everything that is missing for a step with this plan, in words; empty if nothing is."""
    return "; ".join([*_short_counts(needs, plan, found), *_absent(needs, plan, found)])


def _short_counts(needs: StepNeeds, plan: Plan, found: Equipment) -> Iterator[str]:
    gpus = [gpu for share in plan.nodes for gpu in _gpus_of(found.facts[share.name], share.gpus)]
    if len(plan.nodes) < needs.nodes:
        yield f"needs {_count(needs.nodes, 'node')}, has {len(plan.nodes)}"
    if len(gpus) < needs.gpus:
        yield f"needs {_count(needs.gpus, 'GPU')}, has {len(gpus)}"
    smallest = min((gpu.memory_bytes for gpu in gpus), default=0) / GIB
    if smallest < needs.gpu_memory_gib and (gpus or not needs.gpus):
        has = f"the smallest has {smallest:.0f}" if gpus else "there is none"
        yield f"needs GPUs of {needs.gpu_memory_gib:g} GiB, {has}"
    least = min(found.facts[share.name].memory_bytes for share in plan.nodes) / GIB
    if least < needs.memory_gib:
        yield f"needs {needs.memory_gib:g} GiB of memory, the smallest node has {least:.0f}"


def _absent(needs: StepNeeds, plan: Plan, found: Equipment) -> Iterator[str]:
    for tool in needs.tools:
        if nodes := _without(tool, found.tools, plan):
            yield f"needs {tool}, which is not on the PATH of {nodes}"
    for package in needs.packages:
        if nodes := _without(package, found.packages, plan):
            yield f"needs the package {package}, which the ranks on {nodes} do not have"


def _without(name: str, having: Mapping[str, frozenset[str]], plan: Plan) -> str:
    """The nodes of the plan that do not have it, folded; empty if all do."""
    nodes = [share.name for share in plan.nodes if name not in having.get(share.name, ())]
    return fold_nodeset(nodes) if nodes else ""


def _gpus_of(facts: Facts, indices: tuple[int, ...]) -> list[Gpu]:
    return [gpu for gpu in facts.gpus if gpu.index in indices]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
