"""Power, clocks and memory of GPUs, as sections."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.adapters.report.captures.shown import (
    Shown,
    charts_of_nodes,
    each_gpu,
    table_section,
)
from orchestrator.core.base.figures import format_figure, format_number
from orchestrator.core.captures.gpu_summary import (
    ClockFigures,
    MemoryFigures,
    PowerFigures,
    clock_figures,
    memory_figures,
    power_figures,
)
from orchestrator.core.captures.points import Points
from orchestrator.core.captures.recorded import CapturedSamples, NodeRecord
from orchestrator.core.model.facts import Gpu
from orchestrator.parsing.replies import report_sections as given

UNKNOWN = "unknown"
GIB = 1 << 30
CLOCKS_NOTE = "Parts of the time; several reasons may hold at once."
POWER_NOTE = (
    "GPU board power by NVML, not wall power. Energy is the difference of the driver's counter; "
    "the integral of the power readings checks it, and 5 % apart is too much."
)


def show_power(records: Sequence[NodeRecord]) -> Shown:
    """Of all GPUs of the run."""
    found = [
        (record, gpu, power_figures(watts(record, gpu), joules(record, gpu)))
        for record, gpu in each_gpu(records, "power")
    ]
    headings = ("GPU", "mean", "peak", "limit", "energy", "integral of power", "check")
    rows = (_power_row(record.node, record.gpu(gpu), figures) for record, gpu, figures in found)
    axis = given.Axis(label="Power", unit="W", from_zero=True)
    figures = _power_totals([figures for *_, figures in found])
    return Shown(
        sections=[
            table_section("Power", headings, rows, POWER_NOTE),
            *charts_of_nodes(records, "power", axis, watts),
        ],
        line=_power_line(len(found), figures),
        figures=figures,
    )


def watts(record: NodeRecord, gpu: int) -> Points:
    """At each moment; where the driver only gives a mean over a second, that."""
    samples = record.samples["power"]
    instant = samples.points((gpu,), "instant_mw", 1e-3)
    return instant or samples.points((gpu,), "average_mw", 1e-3)


def joules(record: NodeRecord, gpu: int) -> Points:
    """The energy counter."""
    return record.samples["power"].points((gpu,), "energy_mj", 1e-3)


def _power_row(node: str, gpu: Gpu, found: PowerFigures) -> list[str]:
    apart = found.disagreement
    return [
        f"{node} GPU {gpu.index}",
        _figure(found.mean_w, "W"),
        _figure(found.peak_w, "W"),
        _figure(gpu.power_limit_w, "W"),
        _figure(found.joules, "J"),
        _figure(found.integrated, "J"),
        found.problem or ("" if apart is None else f"{apart:+.1%}"),
    ]


def _figure(value: float | None, unit: str) -> str:
    return UNKNOWN if value is None else format_figure(value, unit)


def _power_totals(found: Sequence[PowerFigures]) -> dict[str, float]:
    """Sums over GPUs, where each of them is known."""
    means = [one.mean_w for one in found if one.mean_w is not None]
    used = [one.joules for one in found if one.joules is not None]
    apart = [abs(one.disagreement) for one in found if one.disagreement is not None]
    figures: dict[str, float] = {"gpus": len(found)}
    if found and len(means) == len(found):
        figures["mean_w"] = sum(means)
    if found and len(used) == len(found):
        figures["energy_j"] = sum(used)
    if apart:
        figures["disagreement_max_fraction"] = max(apart)
    return figures


def _power_line(gpus: int, figures: dict[str, float]) -> str:
    parts = [f"{gpus} GPUs"]
    if "mean_w" in figures:
        parts.append(f"{format_figure(figures['mean_w'], 'W')} on average")
    if "energy_j" in figures:
        parts.append(format_figure(figures["energy_j"], "J"))
    return ", ".join(parts)


def show_clocks(records: Sequence[NodeRecord]) -> Shown:
    """Of all GPUs of the run, with what held clocks down."""
    found = [
        (record, gpu, figures)
        for record, gpu in each_gpu(records, "clocks")
        if (figures := _clocks_of(record.samples["clocks"], gpu)) is not None
    ]
    headings = ("GPU", "median", "least", "most", "of the card", "hottest", "held down by")
    rows = (_clock_row(record.node, record.gpu(gpu), figures) for record, gpu, figures in found)
    axis = given.Axis(label="SM clock", unit="MHz", from_zero=True)
    line, totals = _clock_totals([figures for *_, figures in found])
    return Shown(
        sections=[
            table_section("Clocks", headings, rows, CLOCKS_NOTE),
            *charts_of_nodes(records, "clocks", axis, _sm_clock),
        ],
        line=line,
        figures=totals,
    )


def _sm_clock(record: NodeRecord, gpu: int) -> Points:
    return record.samples["clocks"].points((gpu,), "sm_mhz")


def _clock_totals(found: Sequence[ClockFigures]) -> tuple[str, dict[str, float]]:
    """The line, and figures over all GPUs."""
    held = [(worst[1], worst[0]) for one in found if (worst := one.worst) is not None]
    longest, reason = max(held, default=(0.0, ""))
    totals = {"gpus": float(len(found)), "held_max_fraction": longest}
    line = f"{len(found)} GPUs"
    if found:
        totals["slowest_median_mhz"] = min(one.median_mhz for one in found)
        line += f", slowest median {format_figure(totals['slowest_median_mhz'], 'MHz')}"
    if reason:
        line += f"; held down by {reason} for up to {longest:.0%} of the time"
    return line, totals


def _clocks_of(samples: CapturedSamples, gpu: int) -> ClockFigures | None:
    reasons = [(t, int(mask)) for t, mask in samples.points((gpu,), "throttle")]
    celsius = samples.points((gpu,), "temperature_c")
    return clock_figures(samples.points((gpu,), "sm_mhz"), reasons, celsius)


def _clock_row(node: str, gpu: Gpu, found: ClockFigures) -> list[str]:
    clocks = (found.median_mhz, found.least_mhz, found.most_mhz, gpu.sm_clock_max_mhz)
    by_part = sorted(found.held.items(), key=lambda item: -item[1])
    return [
        f"{node} GPU {gpu.index}",
        *(_figure(mhz, "MHz") for mhz in clocks),
        UNKNOWN if found.hottest_c is None else f"{format_number(found.hottest_c)} °C",
        ", ".join(f"{reason} {part:.0%}" for reason, part in by_part) or "nothing",
    ]


def show_memory(records: Sequence[NodeRecord]) -> Shown:
    """Of all GPUs of the run; what is in use includes other processes on them."""
    found = [
        (record, gpu, figures)
        for record, gpu in each_gpu(records, "memory")
        if (figures := memory_figures(_used(record, gpu))) is not None
    ]
    headings = ("GPU", "at the launch", "peak", "after", "at the end", "of the card")
    rows = (_memory_row(record.node, record.gpu(gpu), figures) for record, gpu, figures in found)
    axis = given.Axis(label="Memory in use", unit="GiB", from_zero=True)
    most = max((figures.peak for *_, figures in found), default=0.0)
    return Shown(
        sections=[
            table_section("Memory", headings, rows, "In use by all processes of the GPU."),
            *charts_of_nodes(records, "memory", axis, _used_gib),
        ],
        line=f"{len(found)} GPUs, at most {format_figure(most, 'bytes')} in use",
        figures={"gpus": float(len(found)), "peak_bytes": most},
    )


def _memory_row(node: str, gpu: Gpu, found: MemoryFigures) -> list[str]:
    return [
        f"{node} GPU {gpu.index}",
        format_figure(found.first, "bytes"),
        format_figure(found.peak, "bytes"),
        format_figure(found.peak_at, "s"),
        format_figure(found.last, "bytes"),
        format_figure(gpu.memory_bytes, "bytes") if gpu.memory_bytes else UNKNOWN,
    ]


def _used(record: NodeRecord, gpu: int) -> Points:
    return record.samples["memory"].points((gpu,), "used_bytes")


def _used_gib(record: NodeRecord, gpu: int) -> Points:
    return record.samples["memory"].points((gpu,), "used_bytes", 1 / GIB)
