"""A figure over the nights of a schedule, as a chart."""

from __future__ import annotations

from orchestrator.adapters.nightly.status_page import FigureTrend
from orchestrator.adapters.report.drawing.trend_chart import TrendChart, TrendPoint, draw_trend


def draw_night_trend(trend: FigureTrend) -> TrendChart | None:
    """The nights of a figure beside the last good one; None for fewer than two."""
    points = [
        TrendPoint(night, value, tone="bad" if trend.first_bad and night >= trend.first_bad else "")
        for night, value in zip(trend.nights, trend.trend, strict=True)
    ]
    note = f"the last good night, {trend.last_good}" if trend.before is not None else ""
    name = f"{trend.schedule}: {trend.figure}"
    return draw_trend(name, trend.unit, points, reference=trend.before, note=note)
