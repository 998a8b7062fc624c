"""A comparison as one HTML file: its table, and each curve of both sides in one chart."""

from __future__ import annotations

from pathlib import Path

from orchestrator.adapters.history.store import HistoryStore
from orchestrator.adapters.report.drawing.charts import MAX_LINES, Chart, draw_charts
from orchestrator.adapters.report.html_report import render_template
from orchestrator.adapters.store.atomic_files import write_atomic
from orchestrator.adapters.store.metric_series import Series
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.figures import format_figure
from orchestrator.core.history.comparing import RunGroup, RunsComparison

_CURVES = MAX_LINES // 2  # of each side; a baseline may have many runs


def write_comparison(path: Path, found: RunsComparison, store: HistoryStore) -> None:
    """Raises :class:`UsageError` where it cannot be written."""
    try:
        write_atomic(path, render_comparison(found, store).encode("utf-8", "replace"))
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError("cannot be written", id="compare.html", where=path, why=why) from error


def render_comparison(found: RunsComparison, store: HistoryStore) -> str:
    """The whole document."""
    charts = comparison_charts(found, store)
    return render_template("compare.html.jinja", found=found, charts=charts, value=format_figure)


def comparison_charts(found: RunsComparison, store: HistoryStore) -> tuple[Chart, ...]:
    """Each curve of both sides in one chart."""
    series = [*_curves("A", found.a, store), *_curves("B", found.b, store)]
    return draw_charts(sorted(series, key=lambda one: one.name), label=lambda one: one.node)


def _curves(side: str, group: RunGroup, store: HistoryStore) -> list[Series]:
    found = []
    for run in group.runs[:_CURVES]:
        for name, points in store.read_curves(run.run_id).items():
            figure = run.figures.get(name)
            unit = figure.unit if figure else ""
            found.append(Series(name, unit, f"{side} {run.run_id}", 0, points))
    return found
