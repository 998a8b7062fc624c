"""The curves of a run while it runs, in bounded memory: spikes stay, steps between them may go."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from orchestrator.adapters.report.drawing.charts import (
    MAX_CHARTS,
    MAX_LINES,
    MAX_POINTS,
    Chart,
    draw_charts,
    thin_curve,
)
from orchestrator.adapters.store.metric_series import Point, Series
from orchestrator.core.history.run_record import Curve

DRAWN_POINTS = 12_000  # of all lines together
LEAST_POINTS = 40


@dataclass(slots=True)
class _Line:
    unit: str
    node: str
    values: dict[int, float] = field(default_factory=dict)

    @property
    def curve(self) -> Curve:
        """By ascending steps."""
        return tuple(sorted(self.values.items()))

    def add(self, step: int, value: float) -> None:
        """Of a repeated step the last counts."""
        self.values[step] = value
        if len(self.values) > 2 * MAX_POINTS:
            self.values = dict(thin_curve(self.curve))


class LiveCurves:
    """At most ``MAX_CHARTS`` metrics of the first ``MAX_LINES`` ranks that report each."""

    def __init__(self) -> None:
        self._metrics: dict[str, dict[int, _Line]] = {}
        self._hidden: dict[str, set[int]] = {}
        self.last_step: int | None = None

    def add(self, points: Iterable[Point]) -> None:
        """Take points as ranks report them; final figures are no part of a curve."""
        for point in points:
            if point.step is None or not math.isfinite(point.value):
                continue
            self.last_step = max(self.last_step or 0, point.step)
            line = self._line(point)
            if line is not None:
                line.add(point.step, point.value)

    def charts(self) -> tuple[Chart, ...]:
        """One for each metric; together of about ``DRAWN_POINTS`` points."""
        lines = sum(len(ranks) for ranks in self._metrics.values())
        most = max(LEAST_POINTS, min(MAX_POINTS, DRAWN_POINTS // max(1, lines)))
        series = [
            Series(name, line.unit, line.node, rank, thin_curve(line.curve, most))
            for name, ranks in sorted(self._metrics.items())
            for rank, line in sorted(ranks.items())
        ]
        drawn = draw_charts(series)
        return tuple(
            replace(chart, hidden=len(self._hidden.get(chart.name, ()))) for chart in drawn
        )

    def _line(self, point: Point) -> _Line | None:
        ranks = self._metrics.get(point.name)
        if ranks is None:
            if len(self._metrics) >= MAX_CHARTS:
                return None
            ranks = self._metrics[point.name] = {}
        if point.rank not in ranks and len(ranks) >= MAX_LINES:
            self._hidden.setdefault(point.name, set()).add(point.rank)
            return None
        return ranks.setdefault(point.rank, _Line(point.unit, point.node))
