"""A figure over runs or nights as a small line chart: geometry only, in the units of an SVG view
box. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.adapters.report.drawing.axes import AxisTick, LinearAxis
from orchestrator.core.base.figures import format_figure, sparkline

WIDTH, HEIGHT = 720, 150
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 26
SHOWN_LABELS = 5  # along the horizontal axis


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """``label``: its day; ``title``: what else it is, such as a run; ``tone``: good, bad, odd or
    empty.
    """

    label: str
    value: float
    title: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class TrendSpot:
    """A point with the text that appears over it."""

    x: float
    y: float
    title: str
    tone: str


@dataclass(frozen=True, slots=True)
class TrendChart:
    """``reference``: the height of a line that the points are held against, which ``note`` names;
    None = there is none. ``spark``: the same trend as one line of text.
    """

    name: str
    unit: str
    line: str
    spots: tuple[TrendSpot, ...]
    x_ticks: tuple[AxisTick, ...]
    y_ticks: tuple[AxisTick, ...]
    reference: float | None
    note: str
    spark: str


def draw_trend(
    name: str,
    unit: str,
    points: Sequence[TrendPoint],
    *,
    reference: float | None = None,
    note: str = "",
) -> TrendChart | None:
    """Points at equal distances, oldest first; None for fewer than two."""
    if len(points) < 2:
        return None
    heights = [point.value for point in points]
    x = LinearAxis.over([0.0, len(points) - 1.0], LEFT, WIDTH - RIGHT)
    y = LinearAxis.over(
        heights if reference is None else [*heights, reference], HEIGHT - BOTTOM, TOP
    )
    spots = tuple(
        TrendSpot(
            round(x.place(index), 1),
            round(y.place(point.value), 1),
            f"{point.label} {point.title}".rstrip() + f": {format_figure(point.value, unit)}",
            point.tone,
        )
        for index, point in enumerate(points)
    )
    return TrendChart(
        name=name,
        unit=unit,
        line=" ".join(f"{spot.x},{spot.y}" for spot in spots),
        spots=spots,
        x_ticks=_label_ticks(points, spots),
        y_ticks=tuple(y.ticks(3)),
        reference=None if reference is None else round(y.place(reference), 1),
        note=note,
        spark=sparkline(heights),
    )


def _label_ticks(points: Sequence[TrendPoint], spots: Sequence[TrendSpot]) -> tuple[AxisTick, ...]:
    """Labels of a few points, the first and the last among them."""
    last = len(points) - 1
    count = min(SHOWN_LABELS, len(points))
    chosen = sorted({round(index * last / (count - 1)) for index in range(count)})
    return tuple(AxisTick(spots[index].x, points[index].label) for index in chosen)
