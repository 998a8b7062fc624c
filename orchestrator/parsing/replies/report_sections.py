"""What a workload adds to its run's report, ``report_sections.json``: see docs/workloads.md.

Everything is bounded; a document that breaks a rule is refused as a whole, with the first reason.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.inputs.validation import Strict

MAX_BYTES = 4 * 1024 * 1024
MAX_SECTIONS = 64

Text = Annotated[str, Field(max_length=4000)]
Short = Annotated[str, Field(max_length=200)]
Unit = Annotated[str, Field(max_length=40)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Tone = Literal["", "good", "odd", "bad", "soft"]


class TextSection(Strict):
    """A paragraph. ``terminal``: also shown where the run's result is."""

    kind: Literal["text"]
    title: Short = ""
    text: Text
    tone: Tone = ""
    terminal: bool = False


class Column(Strict):
    """A heading; ``right`` aligns its cells like numbers."""

    name: Short
    right: bool = False


class Cell(Strict):
    """One cell."""

    text: Text
    tone: Tone = ""


class TableSection(Strict):
    """A table. ``folded``: HTML shows only the title until it is opened."""

    kind: Literal["table"]
    title: Short
    columns: Annotated[list[Column], Field(min_length=1, max_length=16)]
    rows: Annotated[list[list[Cell]], Field(max_length=500)]
    note: Text = ""
    terminal: bool = False
    folded: bool = False

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("every row must have as many cells as there are columns")
        return self


class Tile(Strict):
    """One figure in large letters, with what it is above and a remark below."""

    label: Short
    value: Short
    unit: Unit = ""
    text: Short = ""
    tone: Tone = ""


class TilesSection(Strict):
    """The few figures that matter most, side by side."""

    kind: Literal["tiles"]
    title: Short = ""
    tiles: Annotated[list[Tile], Field(min_length=1, max_length=12)]


class Axis(Strict):
    """``log``: equal ratios are equally far apart. ``from_zero``: zero is always in sight."""

    label: Short
    unit: Unit = ""
    log: bool = False
    from_zero: bool = False


class Line(Strict):
    """Points by ascending x."""

    label: Short
    points: Annotated[list[tuple[Number, Number]], Field(min_length=1, max_length=2000)]


class Mark(Strict):
    """A value worth a line of its own, such as a gate."""

    label: Short = ""
    value: Number
    tone: Tone = ""


Marks = Annotated[list[Mark], Field(max_length=8)]


class LinesSection(Strict):
    """Curves over a common axis; marks are horizontal lines."""

    kind: Literal["lines"]
    title: Short
    x: Axis
    y: Axis
    series: Annotated[list[Line], Field(min_length=1, max_length=16)]
    marks: Marks = Field(default_factory=list)
    note: Text = ""

    @model_validator(mode="after")
    def _positive(self) -> Self:
        points = [point for line in self.series for point in line.points]
        if self.x.log and min(x for x, _ in points) <= 0:
            raise ValueError("a logarithmic x axis needs values above 0")
        heights = [y for _, y in points] + [mark.value for mark in self.marks]
        if self.y.log and min(heights) <= 0:
            raise ValueError("a logarithmic y axis needs values above 0")
        return self


class HeatSection(Strict):
    """A matrix of numbers; null = there is none."""

    kind: Literal["heat"]
    title: Short
    unit: Unit = ""
    rows: Annotated[list[Short], Field(min_length=1, max_length=64)]
    columns: Annotated[list[Short], Field(min_length=1, max_length=64)]
    values: list[list[Number | None]]
    note: Text = ""

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        right = len(self.values) == len(self.rows)
        if not right or any(len(row) != len(self.columns) for row in self.values):
            raise ValueError("values must have a row for each of `rows`, as long as `columns`")
        return self


class Bar(Strict):
    """``target``: a mark on the bar; ``text``: beside it."""

    label: Short
    value: Annotated[Number, Field(ge=0)]
    target: Annotated[Number, Field(ge=0)] | None = None
    text: Short = ""
    tone: Tone = ""


class BarsSection(Strict):
    """Horizontal bars from zero."""

    kind: Literal["bars"]
    title: Short
    unit: Unit = ""
    bars: Annotated[list[Bar], Field(min_length=1, max_length=64)]
    note: Text = ""


class Dot(Strict):
    """One value of a spread; ``label`` names whose it is."""

    label: Short
    value: Number
    tone: Tone = ""


class SpreadGroup(Strict):
    """Values that belong into one row."""

    label: Short
    points: Annotated[list[Dot], Field(min_length=1, max_length=1024)]


class SpreadSection(Strict):
    """Rows of dots over a common axis; marks are vertical lines."""

    kind: Literal["spread"]
    title: Short
    unit: Unit = ""
    groups: Annotated[list[SpreadGroup], Field(min_length=1, max_length=32)]
    marks: Marks = Field(default_factory=list)
    note: Text = ""


Section = Annotated[
    TextSection
    | TilesSection
    | TableSection
    | LinesSection
    | HeatSection
    | BarsSection
    | SpreadSection,
    Field(discriminator="kind"),
]


class ReportSections(Strict):
    """The whole document."""

    schema_version: Literal[1]
    sections: Annotated[list[Section], Field(max_length=MAX_SECTIONS)]


def parse_sections(data: bytes, *, where: str) -> ReportSections:
    """Raises :class:`UsageError` with the first thing that is wrong; ``where`` names the file."""
    if len(data) > MAX_BYTES:
        raise _refused_error(f"{len(data)} bytes; at most {MAX_BYTES}", where)
    try:
        return ReportSections.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"][:8])
        raise _refused_error(f"{place}: {first['msg']}".removeprefix(": ")[:300], where) from error


def _refused_error(why: str, where: str) -> UsageError:
    return UsageError(
        "the workload's sections of the report cannot be shown",
        id="OR-REPORT-001",
        where=where,
        why=why,
        remedy="see docs/workloads.md, `Sections of the report`",
    )
