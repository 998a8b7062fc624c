"""Workloads' sections of the report as Markdown: what is drawn elsewhere is a table here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from orchestrator.adapters.report.drawing.plots import axis_label
from orchestrator.adapters.report.markdown_text import escape_markdown, markdown_table
from orchestrator.adapters.report.section_files import NodeSections
from orchestrator.parsing.replies import report_sections as given

_BOLD = {"bad", "odd"}


def section_parts(sections: Iterable[NodeSections]) -> Iterator[str]:
    """Paragraphs and tables, in the order of the documents."""
    for part in sections:
        if part.trouble:
            yield f"**{escape_markdown(part.node)}: {escape_markdown(part.trouble)}**"
        yield from section_lines_of(part.content.sections if part.content else ())


def section_lines_of(sections: Iterable[given.Section]) -> Iterator[str]:
    """The same of the sections alone."""
    for section in sections:
        yield from _section_lines(section)


def _section_lines(section: given.Section) -> Iterator[str]:
    if isinstance(section, given.TextSection):
        title = f"{escape_markdown(section.title)}: " if section.title else ""
        text = f"{title}{escape_markdown(section.text)}"
        yield f"**{text}**" if section.tone in _BOLD else text
        return
    if isinstance(section, given.TilesSection):
        for tile in section.tiles:
            text = f" ({escape_markdown(tile.text)})" if tile.text else ""
            value = f"{escape_markdown(tile.value)} {escape_markdown(tile.unit)}"
            yield f"- {escape_markdown(tile.label)}: **{value}**{text}"
        return
    title = escape_markdown(section.title)
    headings: Sequence[str]
    match section:
        case given.TableSection():
            headings = [escape_markdown(column.name) for column in section.columns]
            yield from markdown_table(
                title, headings, ([cell.text for cell in row] for row in section.rows)
            )
        case given.LinesSection():
            headings = ("curve", f"first {escape_markdown(section.y.label)}", "last", "highest")
            yield from markdown_table(
                title, headings, (_curve_row(line, section) for line in section.series)
            )
            if section.marks:
                yield "Marks: " + ", ".join(escape_markdown(mark.label) for mark in section.marks)
        case given.HeatSection():
            headings = ("", *map(escape_markdown, section.columns))
            yield from markdown_table(title, headings, _matrix_rows(section))
        case given.BarsSection():
            rows = (
                (bar.label, bar.text or axis_label(bar.value, section.unit)) for bar in section.bars
            )
            yield from markdown_table(title, ("what", "value"), rows)
        case given.SpreadSection():
            headings = ("what", "lowest", "median", "highest", "out of line")
            yield from markdown_table(
                title, headings, (_spread_row(g, section.unit) for g in section.groups)
            )
    if section.note:
        yield escape_markdown(section.note)


def _curve_row(line: given.Line, section: given.LinesSection) -> tuple[str, ...]:
    def told(point: tuple[float, float]) -> str:
        return f"{axis_label(point[1], section.y.unit)} at {axis_label(point[0], section.x.unit)}"

    highest = max(line.points, key=lambda point: point[1])
    return line.label, told(line.points[0]), told(line.points[-1]), told(highest)


def _matrix_rows(section: given.HeatSection) -> Iterator[tuple[str, ...]]:
    for name, numbers in zip(section.rows, section.values, strict=True):
        yield name, *("" if number is None else f"{number:.4g}" for number in numbers)


def _spread_row(group: given.SpreadGroup, unit: str) -> tuple[str, ...]:
    values = [dot.value for dot in group.points]
    odd = ", ".join(dot.label for dot in group.points if dot.tone in _BOLD)
    return (
        group.label,
        axis_label(min(values), unit),
        axis_label(median(values), unit),
        axis_label(max(values), unit),
        odd,
    )
