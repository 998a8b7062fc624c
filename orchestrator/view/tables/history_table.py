"""Past runs as a table, with the trend of one figure as a sparkline."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from orchestrator.core.base.figures import format_figure, sparkline
from orchestrator.core.history.run_record import RunRecord
from orchestrator.core.model.workload import Direction
from orchestrator.view.terminal.text import brief_text

HEADINGS = ("run", "finished", "cluster", "workload", "status", "figure", "value", "trend")


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """A run, the figure that stands for it, and this figure's values up to it, oldest first."""

    run: RunRecord
    metric: str | None
    trend: tuple[float, ...] = ()


def history_cells(row: HistoryRow) -> list[str]:
    """The cells of one line, under ``HEADINGS``."""
    run = row.run
    found = run.figures.get(row.metric) if row.metric else None
    value = ""
    if row.metric:
        known = found is not None and found.value is not None
        value = format_figure(found.value, brief_text(found.unit, 24)) if known else "missing"  # type: ignore[union-attr,arg-type]
    moment = datetime.fromtimestamp(run.finished).astimezone()
    return [
        run.run_id,
        f"{moment:%Y-%m-%d %H:%M}",
        brief_text(run.cluster, 24),
        brief_text(run.workload, 24),
        run.status.value,
        brief_text(row.metric or "", 32),
        value,
        sparkline(row.trend),
    ]


def main_metric(run: RunRecord) -> str | None:
    """The figure that stands for a run: the first that has a better direction, else the first."""
    directed = (n for n, f in run.figures.items() if f.direction is not Direction.INFO)
    return next(directed, next(iter(run.figures), None))
