"""Is a node fit for the job? Facts against inventory, and nodes against each other. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.model import devices
from orchestrator.core.model.container import ContainerImage
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.model.scheduled_node import ScheduledNode

CLOCK_TOLERANCE_S = 2.0
NCCL_WHEELS = ("nvidia-nccl-cu13", "nvidia-nccl-cu12")  # names of distributions, not of modules
# What pickles, byte code and compiled modules go by; beside the modules, as their interpreter's.
PYTHON = "python"
MODULES_THAT_MUST_AGREE = ("torch", *NCCL_WHEELS, "transformers", "peft", "ray")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFinding:
    """All that is known of a node before launch: facts, the ranks' interpreter, its modules and
    the variables that put its environment in force.

    ``modules`` None = the interpreter was not asked (offline, or a plain command). ``scheduled``
    None = no scheduler was asked. ``image`` None = ranks run in no container, or nobody asked.
    """

    facts: Facts
    interpreter: str
    modules: Mapping[str, str] | None = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    scheduled: ScheduledNode | None = None
    image: ContainerImage | None = None


def unfit_reason(spec: NodeSpec, finding: NodeFinding, modules: Sequence[str]) -> str | None:
    """Why the node cannot take part, or None. ``modules``: what its ranks are to import."""
    return gpus_missing(spec, finding.facts) or _modules_missing(finding, modules)


def gpus_missing(spec: NodeSpec, facts: Facts) -> str | None:
    """How the GPUs fall short of what the inventory declares, and what the driver says of it."""
    missing = None if facts.assumed else _short_of(spec, facts)
    said = "; ".join(facts.lost_gpus) or devices.driver_words(facts)
    return f"{missing} ({said})" if missing and said else missing


def _short_of(spec: NodeSpec, facts: Facts) -> str | None:
    found = {gpu.index for gpu in facts.gpus}
    if spec.gpus.indices is not None:
        absent = sorted(set(spec.gpus.indices) - found)
        if absent:
            return f"has no GPU {', '.join(map(str, absent))} (found {len(found)} GPUs)"
    elif spec.gpus.count is not None and spec.gpus.count > len(found):
        return f"the inventory declares {spec.gpus.count} GPUs, found {len(found)}"
    wanted = (spec.gpus.type or "").casefold()
    names = {gpu.name for gpu in facts.gpus}
    if wanted and not names and spec.gpus.count != 0:
        return f"the inventory declares {spec.gpus.type} GPUs, found none"
    if wanted and names and not any(wanted in name.casefold() for name in names):
        return f"the inventory declares {spec.gpus.type} GPUs, found {', '.join(sorted(names))}"
    return None


def finding_warnings(findings: Mapping[str, NodeFinding]) -> Iterator[str]:
    """What is odd but no reason to leave a node out."""
    for name, finding in findings.items():
        offset = finding.facts.clock_offset_s
        if abs(offset) > CLOCK_TOLERANCE_S:
            yield f"{name}: its clock is {offset:+.1f} s off; times in logs will not line up"
    for module in (PYTHON, *MODULES_THAT_MUST_AGREE):
        yield from _version_skew(
            module, {n: (f.modules or {}).get(module) for n, f in findings.items()}
        )
    yield from _version_skew("driver", {n: f.facts.driver or None for n, f in findings.items()})


def _modules_missing(finding: NodeFinding, modules: Sequence[str]) -> str | None:
    if finding.modules is None:
        return None
    absent = [module for module in modules if module not in finding.modules]
    if not absent:
        return None
    return f"{finding.interpreter} lacks {', '.join(absent)}"


def _version_skew(what: str, versions: Mapping[str, str | None]) -> Iterator[str]:
    counts = Counter(version for version in versions.values() if version)
    if len(counts) < 2:
        return
    common = counts.most_common(1)[0][0]
    odd = ", ".join(f"{n} has {v}" for n, v in versions.items() if v and v != common)
    yield f"{what} differs between nodes: most have {common}; {odd}"
