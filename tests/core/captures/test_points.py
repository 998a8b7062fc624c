"""Curves of captures: integrals that add up, counters that fall back, peaks that stay."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.captures.points import (
    Point,
    gained,
    integral,
    mean_over_time,
    rates,
    thin_points,
)

VALUES = st.floats(0, 1e6)
POINTS = st.lists(st.tuples(st.floats(0, 1e5), VALUES), min_size=1, max_size=200).map(sorted)


@given(points=POINTS, cut=st.integers(0, 199))
def test_an_integral_is_the_sum_of_its_parts(points: list[Point], cut: int) -> None:
    at = min(cut, len(points) - 1)
    parts = integral(points[: at + 1]) + integral(points[at:])
    assert math.isclose(integral(points), parts, rel_tol=1e-9, abs_tol=1e-6)


@given(points=POINTS)
def test_a_mean_lies_between_the_least_and_the_greatest_value(points: list[Point]) -> None:
    values = [value for _, value in points]
    slack = 1e-6 * max(values)
    assert min(values) - slack <= mean_over_time(points) <= max(values) + slack


@given(points=POINTS, most=st.integers(4, 60))
def test_fewer_points_keep_ends_and_extremes(points: list[Point], most: int) -> None:
    kept = thin_points(points, most)
    assert len(kept) <= most
    assert list(kept) == sorted(kept)
    assert set(kept) <= set(points)
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    for extreme in (min, max):
        assert extreme(v for _, v in kept) == extreme(v for _, v in points)


@given(steps=st.lists(st.tuples(st.floats(0.01, 10), VALUES), min_size=1, max_size=50))
def test_rates_of_a_counter_add_up_to_what_it_gained(steps: list[tuple[float, float]]) -> None:
    t = count = 0.0
    points = [(t, count)]
    for seconds, amount in steps:
        t, count = t + seconds, count + amount
        points.append((t, count))
    moved = sum(rate * (at - points[i][0]) for i, (at, rate) in enumerate(rates(points)))
    assert math.isclose(moved, gained(points) or 0.0, rel_tol=1e-6, abs_tol=1e-3)


def test_a_counter_that_fell_back_says_nothing() -> None:
    points = [(0.0, 5.0), (1.0, 9.0), (2.0, 1.0), (3.0, 2.0)]
    assert gained(points) is None
    assert rates(points) == ((1.0, 4.0), (3.0, 1.0))
    assert gained([]) is None
