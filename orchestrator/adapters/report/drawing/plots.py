"""Sections of the report as drawings: geometry only, in the units of an SVG view box. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.adapters.report.drawing.axes import AxisTick, LinearAxis, LogAxis, axis_over
from orchestrator.parsing.replies import report_sections as given

WIDTH = 720
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 40
LINES_HEIGHT = 300
MARK_ROOM = 118  # to the right of the curves, for the names of marks
NAME_ROOM = 190  # to the left of rows of bars and dots
ROW = 34
CELL, CELL_HIGH, HEAD = 76, 32, 70
PALE_BELOW = 0.95  # of the median: such a cell of a heat map is framed


@dataclass(frozen=True, slots=True)
class Spot:
    """A point with the text that appears over it."""

    x: float
    y: float
    title: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One curve."""

    label: str
    points: str
    spots: tuple[Spot, ...]
    last: str


@dataclass(frozen=True, slots=True)
class DrawnMark:
    """A line at ``at``; its label stands at ``text_at``, moved so that labels do not collide."""

    at: float
    text_at: float
    label: str
    tone: str


@dataclass(frozen=True, slots=True)
class LinesPlot:
    """Curves in a frame."""

    height: int
    right: float
    lines: tuple[Drawn, ...]
    x_ticks: tuple[AxisTick, ...]
    y_ticks: tuple[AxisTick, ...]
    marks: tuple[DrawnMark, ...]


def lines_plot(section: given.LinesSection) -> LinesPlot:
    """Marks widen the vertical axis, so that a gate is in sight however far off it is."""
    points = [point for line in section.series for point in line.points]
    right = WIDTH - (MARK_ROOM if any(mark.label for mark in section.marks) else RIGHT)
    heights = [y for _, y in points] + [mark.value for mark in section.marks]
    if section.y.from_zero and not section.y.log:
        heights.append(0.0)
    x = axis_over([x for x, _ in points], LEFT, right, log=section.x.log)
    y = axis_over(heights, LINES_HEIGHT - BOTTOM, TOP, log=section.y.log)
    return LinesPlot(
        height=LINES_HEIGHT,
        right=right,
        lines=tuple(_draw_line(line, section, x, y) for line in section.series),
        x_ticks=tuple(_axis_ticks(x, section.x, 7)),
        y_ticks=tuple(_axis_ticks(y, section.y, 5)),
        marks=_place_marks(section.marks, y),
    )


def _draw_line(
    line: given.Line, section: given.LinesSection, x: LinearAxis | LogAxis, y: LinearAxis | LogAxis
) -> Drawn:
    places = [(x.place(a), y.place(b)) for a, b in line.points]
    spots: tuple[Spot, ...] = ()
    if len(places) <= 64:
        spots = tuple(
            Spot(
                round(at, 1),
                round(height, 1),
                f"{line.label}: {axis_label(b, section.y.unit)} at {axis_label(a, section.x.unit)}",
            )
            for (at, height), (a, b) in zip(places, line.points, strict=True)
        )
    return Drawn(
        label=line.label,
        points=" ".join(f"{a:.1f},{b:.1f}" for a, b in places),
        spots=spots,
        last=axis_label(line.points[-1][1], section.y.unit),
    )


def _axis_ticks(axis: LinearAxis | LogAxis, about: given.Axis, count: int) -> Iterator[AxisTick]:
    if about.unit == "bytes" and isinstance(axis, LogAxis):
        for tick in axis.binary_ticks(count):
            yield AxisTick(tick.at, axis_label(float(tick.label), "bytes"))
    else:
        yield from axis.ticks(count)


def _place_marks(marks: Sequence[given.Mark], y: LinearAxis | LogAxis) -> tuple[DrawnMark, ...]:
    placed: list[DrawnMark] = []
    free = -math.inf
    for mark in sorted(marks, key=lambda mark: -mark.value):
        at = y.place(mark.value)
        text_at = max(at + 4, free)
        free = text_at + 13
        placed.append(DrawnMark(round(at, 1), round(text_at, 1), mark.label, mark.tone))
    return tuple(placed)


@dataclass(frozen=True, slots=True)
class HeatCell:
    """``shade`` 0..1; ``pale``: clearly below the others."""

    x: float
    y: float
    text: str
    shade: float
    pale: bool
    title: str


@dataclass(frozen=True, slots=True)
class HeatPlot:
    """A matrix with its headings."""

    width: int
    height: int
    cells: tuple[HeatCell, ...]
    rows: tuple[AxisTick, ...]
    columns: tuple[AxisTick, ...]


def heat_plot(section: given.HeatSection) -> HeatPlot:
    """Shades begin at half of the largest value: equal links look equal, slow ones do not."""
    known = [number for row in section.values for number in row if number is not None]
    most, middle = max(known, default=0.0), median(known) if known else 0.0
    cells = [
        HeatCell(
            x=HEAD + column * CELL,
            y=CELL_HIGH + row * CELL_HIGH,
            text="" if number is None else f"{number:.4g}",
            shade=0.0 if number is None or most <= 0 else max(0.0, 2 * (number / most) - 1),
            pale=number is not None and number < PALE_BELOW * middle,
            title=_cell_title(section, row, column, number),
        )
        for row, numbers in enumerate(section.values)
        for column, number in enumerate(numbers)
    ]
    return HeatPlot(
        width=max(WIDTH, HEAD + CELL * len(section.columns) + RIGHT),
        height=CELL_HIGH * (len(section.rows) + 1) + 8,
        cells=tuple(cells),
        rows=tuple(
            AxisTick(CELL_HIGH * (index + 1.6), label) for index, label in enumerate(section.rows)
        ),
        columns=tuple(
            AxisTick(HEAD + CELL * (index + 0.5), label)
            for index, label in enumerate(section.columns)
        ),
    )


def _cell_title(section: given.HeatSection, row: int, column: int, number: float | None) -> str:
    shown = "none" if number is None else axis_label(number, section.unit)
    return f"{section.rows[row]} to {section.columns[column]}: {shown}"


@dataclass(frozen=True, slots=True)
class DrawnBar:
    """From the left edge; ``target`` None = no mark."""

    y: float
    width: float
    target: float | None
    label: str
    text: str
    tone: str


@dataclass(frozen=True, slots=True)
class BarsPlot:
    """Rows of bars."""

    height: int
    bars: tuple[DrawnBar, ...]


def bars_plot(section: given.BarsSection) -> BarsPlot:
    """The text stands below its bar's label line, so that long bars do not cover it."""
    values = [bar.value for bar in section.bars]
    values += [bar.target for bar in section.bars if bar.target is not None]
    axis = LinearAxis.over([0.0, *values], 0, WIDTH - NAME_ROOM - RIGHT)
    return BarsPlot(
        height=2 * TOP + len(section.bars) * (ROW + 12),
        bars=tuple(
            DrawnBar(
                y=TOP + index * (ROW + 12),
                width=round(axis.place(bar.value), 1),
                target=None if bar.target is None else round(axis.place(bar.target), 1),
                label=bar.label,
                text=bar.text or axis_label(bar.value, section.unit),
                tone=bar.tone,
            )
            for index, bar in enumerate(section.bars)
        ),
    )


@dataclass(frozen=True, slots=True)
class SpreadRow:
    """One group's dots."""

    y: float
    label: str
    spots: tuple[Spot, ...]


@dataclass(frozen=True, slots=True)
class SpreadPlot:
    """Rows of dots over one axis."""

    height: int
    rows: tuple[SpreadRow, ...]
    ticks: tuple[AxisTick, ...]
    marks: tuple[DrawnMark, ...]


def spread_plot(section: given.SpreadSection) -> SpreadPlot:
    values = [dot.value for group in section.groups for dot in group.points]
    values += [mark.value for mark in section.marks]
    axis = LinearAxis.over(values, NAME_ROOM + 8, WIDTH - RIGHT - 8)
    return SpreadPlot(
        height=2 * TOP + len(section.groups) * ROW + 20,
        rows=tuple(
            SpreadRow(
                y=TOP + ROW * (index + 0.5),
                label=group.label,
                spots=tuple(
                    Spot(
                        round(axis.place(dot.value), 1),
                        TOP + ROW * (index + 0.5),
                        dot.label,
                        dot.tone,
                    )
                    for dot in group.points
                ),
            )
            for index, group in enumerate(section.groups)
        ),
        ticks=tuple(axis.ticks(6)),
        marks=tuple(
            DrawnMark(round(axis.place(mark.value), 1), 0.0, mark.label, mark.tone)
            for mark in section.marks
        ),
    )


def axis_label(number: float, unit: str) -> str:
    """With its unit; bytes in powers of 1024."""
    if unit == "bytes":
        for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if number >= size:
                return f"{number / size:.4g} {name}"
        return f"{number:.4g} B"
    return f"{number:.4g} {unit}".rstrip()
