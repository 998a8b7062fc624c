"""A finished run's figures among the runs of its key before it, as charts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from statistics import median

from orchestrator.adapters.history.store import HistoryStore
from orchestrator.adapters.report.drawing.trend_chart import TrendChart, TrendPoint, draw_trend
from orchestrator.core.history.run_record import RunFigure, RunQuery, RunRecord
from orchestrator.core.verdict.result import Status

TREND_RUNS = 30
MAX_TRENDS = 12


def run_trends(history: HistoryStore, run: RunRecord) -> tuple[TrendChart, ...]:
    """A chart for each figure that earlier runs have, too; of many figures the first ones. Only
    runs that succeeded are points, and ``run`` itself. Raises ``OrchestrateError``.
    """
    like = RunQuery(key_digest=run.key.digest, before=run.finished, limit=TREND_RUNS + 1)
    earlier = [
        each
        for each in history.read_runs(like)
        if each.status is Status.SUCCEEDED and each.run_id != run.run_id
    ]
    return tuple(_charts(run, earlier[:TREND_RUNS][::-1]))[:MAX_TRENDS]


def _charts(run: RunRecord, earlier: Sequence[RunRecord]) -> Iterator[TrendChart]:
    for name, figure in run.figures.items():
        points = [*_points(name, figure.unit, earlier), *_points(name, figure.unit, [run])]
        if len(points) < 2 or not figure.measured:
            continue
        before = median(point.value for point in points[:-1])
        earlier_runs = f"{len(points) - 1} earlier run{'s' if len(points) > 2 else ''}"
        note = f"median of {earlier_runs} like this one"
        chart = draw_trend(name, figure.unit, points, reference=before, note=note)
        if chart is not None:
            yield chart


def _points(name: str, unit: str, runs: Sequence[RunRecord]) -> Iterator[TrendPoint]:
    for run in runs:
        figure = run.figures.get(name, RunFigure(value=None))
        if figure.measured and figure.unit == unit and figure.value is not None:
            day = datetime.fromtimestamp(run.finished, UTC).date().isoformat()
            yield TrendPoint(day, figure.value, run.run_id)
