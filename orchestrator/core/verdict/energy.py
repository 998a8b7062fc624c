"""The energy of a whole run: what its nodes measured, added up, and by the work done. Pure.

Board power of the GPUs, as NVML counts it. Processors, memory, fans and power supplies take more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.core.base.figures import sum_of_all
from orchestrator.core.base.wire_names import wire

if TYPE_CHECKING:  # results are read by commands that know no run
    from orchestrator.core.run.events import Divided
    from orchestrator.core.run.kit_reports import EnergyReported
    from orchestrator.core.run.state import RunState

SOURCE = "GPU board power (NVML), not wall power"
MAX_REASONS = 16
TOKENS = ("input_tokens", "output_tokens")


@wire("NodeEnergy")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEnergy:
    """One node inside its measured windows, all its GPUs together. ``joules`` None = not known of
    each of them; ``integrated_joules``: the integral of their power, to compare.
    """

    gpus: int
    seconds: float
    joules: float | None
    integrated_joules: float | None
    watts_mean: float | None
    watts_peak: float | None


@wire("Energy")
@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """The run inside its measured windows. ``reasons``: why it is not ``valid``.

    ``seconds``: those of the longest node; ``watts_peak``: the sum of the nodes' peaks, which need
    not be at one moment. ``work`` is what all ranks counted. ``joules_per`` maps ``request``,
    ``token``, ``input_token`` and ``output_token`` to all joules by so many of them.
    """

    valid: bool
    reasons: tuple[str, ...]
    gpus: int
    seconds: float
    joules: float | None = None
    watts_mean: float | None = None
    watts_peak: float | None = None
    tokens_per_joule: float | None = None
    joules_per: Mapping[str, float] = field(default_factory=dict)
    work: Mapping[str, float] = field(default_factory=dict)
    nodes: Mapping[str, NodeEnergy] = field(default_factory=dict)
    source: str = SOURCE


def energy_of(state: RunState) -> Energy | None:
    """None where no rank opened a measured window."""
    reports = tuple(state.energy.values())
    if not reports:
        return None
    planned = [share.name for share in state.plan.nodes] if state.plan else []
    by_node: dict[str, list[EnergyReported]] = defaultdict(list)
    for report in reports:
        by_node[report.node].append(report)
    nodes = {name: _node_energy(by_node[name]) for name in planned if name in by_node}
    reasons = [reason for name in planned for reason in _reasons(name, by_node.get(name, ()))]
    joules = sum_of_all([node.joules for node in nodes.values()])
    if joules is None and not reasons:
        reasons.append("no node reported what its GPUs used")
    seconds = max((node.seconds for node in nodes.values()), default=0.0)
    work = _work_of(reports, state.divided)
    return Energy(
        valid=not reasons,
        reasons=tuple(reasons[:MAX_REASONS]),
        gpus=sum(node.gpus for node in nodes.values()),
        seconds=seconds,
        joules=joules,
        watts_mean=joules / seconds if joules is not None and seconds > 0 else None,
        watts_peak=sum_of_all([node.watts_peak for node in nodes.values()]),
        tokens_per_joule=work["tokens"] / joules if joules and "tokens" in work else None,
        joules_per=_joules_per(joules, work),
        work=work,
        nodes=nodes,
    )


def _joules_per(joules: float | None, work: Mapping[str, float]) -> dict[str, float]:
    return {name.removesuffix("s"): joules / n for name, n in work.items()} if joules else {}


def _node_energy(reports: Sequence[EnergyReported]) -> NodeEnergy:
    """Windows of one rank follow each other; several ranks ask for a GPU each, at the same time."""
    asked = [report for report in reports if report.asked]
    ranks = {report.rank for report in asked or reports}
    own = [[r for r in asked or reports if r.rank == rank] for rank in sorted(ranks)]
    seconds = max(sum(report.seconds for report in windows) for windows in own)
    gpus = [gpu for report in asked for gpu in report.gpus]
    joules = sum_of_all([gpu.joules for gpu in gpus])
    peaks = [max((r.peak_watts or 0.0 for r in windows), default=0.0) for windows in own]
    return NodeEnergy(
        gpus=sum(max(len(report.gpus) for report in windows) for windows in own),
        seconds=seconds,
        joules=joules,
        integrated_joules=sum_of_all([gpu.integrated for gpu in gpus]),
        watts_mean=joules / seconds if joules is not None and seconds > 0 else None,
        watts_peak=sum(peaks) or None,
    )


def _reasons(node: str, reports: Iterable[EnergyReported]) -> Iterator[str]:
    """Why a node's energy is not valid."""
    asked = [report for report in reports if report.asked]
    if not asked:
        yield f"{node}: reported no energy"
    for problem in dict.fromkeys(problem for report in asked for problem in report.problems):
        yield f"{node}: {problem}"
    if any(not report.final for report in asked):
        yield f"{node}: a measured window was not closed, so that its end is missing"
    if any(not report.gpus and not report.problems for report in asked):
        yield f"{node}: reported no GPU"


def _work_of(reports: Iterable[EnergyReported], divided: Divided | None) -> dict[str, float]:
    """What all ranks did. Of divided work each sample counts once, also if two nodes did it."""
    work: dict[str, float] = defaultdict(float)
    for report in reports:
        for name, count in report.work.items():
            work[name] += count
    requests = work.get("requests", 0.0)
    once = min(1.0, divided.done / requests) if divided is not None and requests else 1.0
    found = {name: count * once for name, count in work.items() if count * once > 0}
    if "tokens" not in found and any(name in found for name in TOKENS):
        found["tokens"] = sum(found.get(name, 0.0) for name in TOKENS)
    return found
