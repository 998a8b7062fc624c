"""What every capture's summary is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.captures.points import Points, thin_points
from orchestrator.core.captures.recorded import NodeRecord
from orchestrator.parsing.replies import report_sections as given

MAX_POINTS = 400
MAX_CURVES = 16
MAX_CHARTS = 6  # nodes with a chart of their own; tables have all
MAX_ROWS = 500
TIME = given.Axis(label="since the launch", unit="s")


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
    records: Sequence[NodeRecord],
    kind: str,
    axis: given.Axis,
    points_of: Callable[[NodeRecord, int], Points],
) -> Iterator[given.LinesSection]:
    """One chart for each of the first nodes, one curve for each of its first GPUs."""
    for record in records[:MAX_CHARTS]:
        curves = {gpu: points_of(record, gpu) for gpu in gpus_in(record, kind)[:MAX_CURVES]}
        lines = [
            given.Line(label=f"GPU {gpu}", points=list(thin_points(points, MAX_POINTS)))
            for gpu, points in curves.items()
            if points
        ]
        if lines:
            yield given.LinesSection(
                kind="lines", title=f"{axis.label}: {record.node}", x=TIME, y=axis, series=lines
            )


def each_gpu(records: Sequence[NodeRecord], kind: str) -> Iterator[tuple[NodeRecord, int]]:
    """Every GPU that has rows, node by node."""
    for record in records:
        for gpu in gpus_in(record, kind):
            yield record, gpu


def gpus_in(record: NodeRecord, kind: str) -> list[int]:
    """Those of one node."""
    samples = record.samples.get(kind)
    return sorted({key[0] for key in samples.rows}) if samples else []
