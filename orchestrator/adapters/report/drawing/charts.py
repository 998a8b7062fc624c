"""Metric series as line charts: geometry only, in the units of an SVG view box. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.adapters.report.drawing.axes import AxisTick, LinearAxis, LogAxis, axis_over
from orchestrator.adapters.store.metric_series import Series
from orchestrator.core.base.figures import format_number
from orchestrator.core.history.run_record import Curve

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 28
MAX_LINES = 8
MAX_POINTS = 600
MAX_CHARTS = 24
DECADES = 2.0  # from here on a linear axis shows only the beginning of a falling loss


@dataclass(frozen=True, slots=True)
class ChartLine:
    """One rank's line: ``points`` as SVG wants them, ``x,y x,y ...``."""

    label: str
    points: str
    last: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One metric of all ranks; ``hidden`` ranks are not drawn."""

    name: str
    unit: str
    lines: tuple[ChartLine, ...]
    x_ticks: tuple[AxisTick, ...]
    y_ticks: tuple[AxisTick, ...]
    hidden: int


def _rank_label(series: Series) -> str:
    return f"rank {series.rank}"


def draw_charts(
    series: Sequence[Series], label: Callable[[Series], str] = _rank_label
) -> tuple[Chart, ...]:
    """A chart for every metric that was reported at two steps or more; ``label`` names a line."""
    by_name: dict[str, list[Series]] = {}
    for one in series:
        if len(one.points) > 1:
            by_name.setdefault(one.name, []).append(one)
    return tuple(
        _draw_chart(name, ranks, label) for name, ranks in list(by_name.items())[:MAX_CHARTS]
    )


def _draw_chart(name: str, ranks: Sequence[Series], label: Callable[[Series], str]) -> Chart:
    shown = ranks[:MAX_LINES]
    curves = [thin_curve(one.points) for one in shown]
    x = LinearAxis.over([step for curve in curves for step, _ in curve], LEFT, WIDTH - RIGHT)
    values = [value for curve in curves for _, value in curve]
    y = axis_over(values, HEIGHT - BOTTOM, TOP, log=_spans_decades(values))
    return Chart(
        name=name,
        unit=shown[0].unit,
        lines=tuple(
            ChartLine(label(one), _curve_points(curve, x, y), format_number(curve[-1][1]))
            for one, curve in zip(shown, curves, strict=True)
        ),
        x_ticks=tuple(x.ticks(6)),
        y_ticks=tuple(y.ticks(5)),
        hidden=len(ranks) - len(shown),
    )


def _spans_decades(values: Sequence[float]) -> bool:
    low, high = min(values), max(values)
    return low > 0 and math.isfinite(high) and math.log10(high / low) >= DECADES


def thin_curve(curve: Curve, most: int = MAX_POINTS) -> Curve:
    """At most ``most`` points: of every stretch the lowest and highest, so spikes stay."""
    if len(curve) <= most:
        return curve
    stretch = math.ceil(len(curve) / (most // 2))
    kept: set[tuple[int, float]] = {curve[0], curve[-1]}
    for start in range(0, len(curve), stretch):
        part = curve[start : start + stretch]
        kept.add(min(part, key=lambda point: point[1]))
        kept.add(max(part, key=lambda point: point[1]))
    return tuple(sorted(kept))


def _curve_points(curve: Curve, x: LinearAxis, y: LinearAxis | LogAxis) -> str:
    return " ".join(f"{x.place(step):.1f},{y.place(value):.1f}" for step, value in curve)
