"""What every capture's summary is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.captures.points import Points, thin_points
from orchestrator.core.captures.recorded import NodeRecord
from orchestrator.parsing.replies import report_sections as given

MAX_POINTS = 400
MAX_CURVES = 16
MAX_CHARTS = 6  # nodes with a chart of their own; tables have all
MAX_ROWS = 500


@dataclass(frozen=True, slots=True)
class Shown:
    """Sections, the line that stands where the run's result is, and figures for scripts."""

    sections: Sequence[given.Section]
    line: str
    figures: Mapping[str, float]


def text_section(
    title: str, text: str, tone: given.Tone = "", *, terminal: bool = False
) -> given.TextSection:
    """A paragraph."""
    return given.TextSection(kind="text", title=title, text=text, tone=tone, terminal=terminal)


def table_section(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], note: str = ""
) -> given.TableSection:
    """The first column is text, all others are numbers; rows beyond the bound are counted."""
    every = [list(row) for row in rows]
    left = len(every) - MAX_ROWS
    more = f"{left} more rows are not shown. " if left > 0 else ""
    columns = [given.Column(name=name, right=place > 0) for place, name in enumerate(headings)]
    cells = [[given.Cell(text=text) for text in row] for row in every[:MAX_ROWS]]
    return given.TableSection(kind="table", title=title, columns=columns, rows=cells,
                              note=more + note)  # fmt: skip


def charts_of_nodes(
    records: Sequence[NodeRecord], title: str, unit: str, curves: Mapping[str, Mapping[str, Points]]
) -> Iterator[given.LinesSection]:
    """One chart for each of the first nodes; ``curves``: node -> label -> points."""
    for record in records[:MAX_CHARTS]:
        lines = [
            given.Line(label=label, points=list(thin_points(points, MAX_POINTS)))
            for label, points in list(curves.get(record.node, {}).items())[:MAX_CURVES]
            if points
        ]
        if lines:
            yield given.LinesSection(
                kind="lines",
                title=f"{title}: {record.node}",
                x=given.Axis(label="since the launch", unit="s"),
                y=given.Axis(label=title, unit=unit, from_zero=True),
                series=lines,
            )


def gpus_in(record: NodeRecord, kind: str) -> list[int]:
    """The GPUs that have rows."""
    samples = record.samples.get(kind)
    return sorted({key[0] for key in samples.rows}) if samples else []
