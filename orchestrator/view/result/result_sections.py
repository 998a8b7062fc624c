"""What a workload has to say beside its run's result: paragraphs and tables, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestrator.adapters.report.section_files import NodeSections
from orchestrator.parsing.replies import report_sections as given
from orchestrator.view.terminal.terminal import BOLD, GREEN, RED, YELLOW, paint_text
from orchestrator.view.terminal.text import brief_text

MAX_CELL = 60
MAX_ROWS = 100
_COLORS = {"good": GREEN, "odd": YELLOW, "bad": RED + BOLD}


def section_lines(sections: Iterable[NodeSections], *, color: bool = False) -> list[str]:
    """Of every document only what it wants shown there; and what could not be read."""
    return list(_lines(sections, color))


def _lines(sections: Iterable[NodeSections], color: bool) -> Iterator[str]:
    for part in sections:
        if part.trouble:
            yield f"  {brief_text(part.node, 80)}: {brief_text(part.trouble, 300)}"
        for section in part.content.sections if part.content else ():
            if isinstance(section, given.TextSection) and section.terminal:
                title = f"{brief_text(section.title, 80)}: " if section.title else ""
                text = title + brief_text(section.text, 600)
                yield "  " + paint_text(text, _COLORS.get(section.tone, ""), color=color)
            elif isinstance(section, given.TableSection) and section.terminal:
                yield from _table(section, color)


def _table(section: given.TableSection, color: bool) -> Iterator[str]:
    """Aligned columns; the last one may be as long as it is."""
    last = len(section.columns) - 1
    headings = [brief_text(column.name, MAX_CELL) for column in section.columns]
    rows = [
        [brief_text(cell.text, MAX_CELL if index < last else 200) for index, cell in enumerate(row)]
        for row in section.rows[:MAX_ROWS]
    ]
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def aligned(cells: list[str]) -> list[str]:
        return [
            cell.rjust(width) if column.right else cell.ljust(width if index < last else 0)
            for index, (cell, width, column) in enumerate(
                zip(cells, widths, section.columns, strict=True)
            )
        ]

    yield ""
    yield f"  {brief_text(section.title, 120)}"
    yield "  " + "  ".join(aligned(headings)).rstrip()
    for row, cells in zip(section.rows, rows, strict=False):
        painted = (
            paint_text(text, _COLORS.get(cell.tone, ""), color=color)
            for text, cell in zip(aligned(cells), row, strict=True)
        )
        yield "  " + "  ".join(painted).rstrip()
    if len(section.rows) > MAX_ROWS:
        yield f"  and {len(section.rows) - MAX_ROWS} more rows in the report"
    yield ""
