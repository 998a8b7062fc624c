"""Figures of a node out of its last probe, and of what its sampler reads: sums and extremes over
its GPUs, disk, clock. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from orchestrator.core.doctor.rules.gpus import is_grave
from orchestrator.core.model.facts import Facts, Gpu, Xid
from orchestrator.core.monitoring import node_metrics as metrics
from orchestrator.core.monitoring.metric import MetricFamily
from orchestrator.core.run.node_telemetry import TelemetryRead

# The names that probes give the driver's reasons. A power cap that software set is ordinary work.
HELD_DOWN = {
    "thermal": frozenset({"hw_thermal", "sw_thermal"}),
    "power": frozenset({"hw_slowdown", "hw_power_brake"}),
}


class NodeFigure(NamedTuple):
    """``labels``: those of the metric after run and node."""

    metric: MetricFamily
    labels: tuple[str, ...]
    value: float


def figures_of_facts(facts: Facts) -> Iterator[NodeFigure]:
    """What is known; what is not has no figure."""
    yield NodeFigure(metrics.NODE_GPUS, (), len(facts.gpus))
    yield NodeFigure(metrics.NODE_CLOCK, (), facts.clock_offset_s)
    if facts.disk_free_bytes:
        yield NodeFigure(metrics.NODE_DISK_FREE, (), facts.disk_free_bytes)
    if facts.xids is not None:
        yield NodeFigure(metrics.NODE_XIDS, (), _grave_errors(facts.xids))
    if facts.gpus or facts.lost_gpus:
        yield NodeFigure(metrics.NODE_GPUS_LOST, (), len(facts.lost_gpus))
    yield from _sums(facts.gpus)
    hot = [gpu.temperature_c for gpu in facts.gpus if gpu.temperature_c is not None]
    if hot:
        yield NodeFigure(metrics.NODE_TEMPERATURE, (), max(hot))
    reasons = [frozenset(gpu.throttle) for gpu in facts.gpus if gpu.throttle is not None]
    for label, kinds in HELD_DOWN.items() if reasons else ():
        held = sum(bool(kinds & reason) for reason in reasons)
        yield NodeFigure(metrics.NODE_THROTTLED, (label,), held)


def figures_of_telemetry(read: TelemetryRead) -> Iterator[NodeFigure]:
    """What is captured, and known."""
    values = (
        (metrics.NODE_POWER, (), read.watts),
        (metrics.NODE_TEMPERATURE, (), read.temperature_c),
        (metrics.NODE_MEMORY_USED, (), read.memory_used_bytes),
        (metrics.NODE_NVLINK, ("sent",), read.nvlink_sent_bytes),
        (metrics.NODE_NVLINK, ("received",), read.nvlink_received_bytes),
        *((metrics.NODE_THROTTLED, (name,), read.throttled.get(name)) for name in HELD_DOWN),
    )
    for metric, labels, value in values:
        if value is not None:
            yield NodeFigure(metric, labels, value)


def newest_figures(
    probed: Sequence[NodeFigure], read: TelemetryRead | None
) -> Iterable[NodeFigure]:
    """What is read now in place of what the probe found."""
    if read is None:
        return probed
    newest = {(figure.metric.name, figure.labels): figure for figure in probed}
    live = figures_of_telemetry(read)
    newest.update({(figure.metric.name, figure.labels): figure for figure in live})
    return newest.values()


def _sums(gpus: Sequence[Gpu]) -> Iterator[NodeFigure]:
    parts: Mapping[MetricFamily, list[float | None]] = {
        metrics.NODE_POWER: [gpu.power_w for gpu in gpus],
        metrics.NODE_MEMORY: [gpu.memory_bytes for gpu in gpus],
        metrics.NODE_MEMORY_USED: [gpu.memory_used_bytes for gpu in gpus],
        metrics.NODE_ECC: [gpu.ecc.uncorrected for gpu in gpus],
    }
    for metric, values in parts.items():
        known = [value for value in values if value is not None]
        if known:
            yield NodeFigure(metric, (), sum(known))


def _grave_errors(xids: Sequence[Xid]) -> int:
    """How many speak against the card, as doctor judges them."""
    return sum(xid.count for xid in xids if is_grave(xid))
