"""Trends of figures: the drawing, and a run's report beside the runs before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.report.drawing.trend_chart import (
    HEIGHT,
    WIDTH,
    TrendPoint,
    draw_trend,
)
from orchestrator.adapters.report.run_trends import run_trends
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.verdict.result import Status
from tests.history.made_runs import KEY, make_entry

DAY = 86_400.0
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=2, max_size=40), st.one_of(st.none(), finite))
def test_every_point_is_inside_the_frame(values: list[float], reference: float | None) -> None:
    points = [TrendPoint(f"night {n}", value) for n, value in enumerate(values)]

    chart = draw_trend("speed", "tok/s", points, reference=reference)

    assert chart is not None
    assert all(0 <= spot.x <= WIDTH and 0 <= spot.y <= HEIGHT for spot in chart.spots)
    assert [tick.label for tick in chart.x_ticks][:: len(chart.x_ticks) - 1] == [
        "night 0",
        f"night {len(values) - 1}",
    ]
    assert len(chart.spark) == len(values)


def test_one_point_is_no_trend() -> None:
    assert draw_trend("speed", "", [TrendPoint("a", 1.0)]) is None


def test_a_run_stands_beside_the_runs_like_it(tmp_path: Path) -> None:
    """Other keys, runs that failed and figures in another unit are no part of its trend."""
    store = open_history(Layout(tmp_path / "home"))
    for number in range(4):
        store.record_run(make_entry(f"r{number}", DAY * number, speed=100.0 + number))
    store.record_run(make_entry("f", DAY * 4, status=Status.FAILED, speed=1.0))
    store.record_run(make_entry("o", DAY * 5, key=replace(KEY, driver="600"), speed=1.0))
    now = make_entry("now", DAY * 6, speed=90.0, power=700.0)

    (chart,) = run_trends(store, now.record)

    assert [spot.title for spot in chart.spots] == [
        "1970-01-01 r0: 100 tok/s",
        "1970-01-02 r1: 101 tok/s",
        "1970-01-03 r2: 102 tok/s",
        "1970-01-04 r3: 103 tok/s",
        "1970-01-07 now: 90 tok/s",
    ]
    assert chart.note == "median of 4 earlier runs like this one"
    assert chart.spots[-1].y > max(spot.y for spot in chart.spots[:-1])
