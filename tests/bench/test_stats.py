"""Medians, ratios and verdicts: what counts as a met target."""

from __future__ import annotations

import statistics

import pytest
from bench_lib.base.stats import Quantity, Sample, Target, judge, rotated, summarize
from hypothesis import given
from hypothesis import strategies as st

SECONDS = st.floats(min_value=1e-3, max_value=1e3)
TARGET = Target(case="c", quantity=Quantity.WALL, limit=0.5, against="them")


def samples(*walls: float) -> list[Sample]:
    return [Sample(wall_s=wall, cpu_s=2 * wall) for wall in walls]


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=5, max_size=9))
def test_a_ratio_is_that_of_the_medians(rounds: list[tuple[float, float]]) -> None:
    """Within the spread of the rounds or not, the value compares medians, never single rounds."""
    ours, theirs = samples(*(a for a, _ in rounds)), samples(*(b for _, b in rounds))

    verdict = judge(TARGET, {"c": {"us": ours, "them": theirs}}, "us")

    a, b = statistics.median(a for a, _ in rounds), statistics.median(b for _, b in rounds)
    assert verdict.value == pytest.approx(a / b)
    assert verdict.met == (a / b <= 0.5)
    assert verdict.low <= verdict.high


def test_a_contender_that_was_not_measured_is_not_beaten() -> None:
    """A missing measurement raises; it is never a pass."""
    with pytest.raises(KeyError):
        judge(TARGET, {"c": {"us": samples(1, 1, 1, 1, 1)}}, "us")
    with pytest.raises(ValueError, match="no samples"):
        judge(TARGET, {"c": {"us": [], "them": []}}, "us")


def test_rounds_that_lack_a_contender_are_refused() -> None:
    """Ratios of rounds need both sides of every round."""
    with pytest.raises(ValueError, match="zip"):
        judge(TARGET, {"c": {"us": samples(1, 1), "them": samples(1)}}, "us")


def test_too_few_repeats_are_no_verdict() -> None:
    """However good four rounds look, they say so."""
    few = {"c": {"us": samples(1, 1, 1, 1), "them": samples(9, 9, 9, 9)}}
    many = {"c": {"us": samples(1, 1, 1, 1, 1), "them": samples(9, 9, 9, 9, 9)}}

    assert judge(TARGET, few, "us").word == "too few repeats"
    assert judge(TARGET, many, "us").word == "met"


def test_a_limit_in_seconds_needs_no_other() -> None:
    """An absolute target compares our own median."""
    target = Target(case="c", quantity=Quantity.CPU, limit=3.0)

    verdict = judge(target, {"c": {"us": samples(1, 1, 2, 9, 9)}}, "us")

    assert (verdict.value, verdict.word, target.unit) == (4.0, "MISSED", "s")


def test_a_summary_has_the_median_and_the_spread() -> None:
    """One slow round moves the spread, not the median."""
    summary = summarize([3.0, 1.0, 2.0, 100.0, 2.0])

    assert (summary.median, summary.low, summary.high, summary.count) == (2.0, 1.0, 100.0, 5)


@given(st.integers(1, 6), st.integers(1, 4))
def test_everybody_goes_first_equally_often(contenders: int, cycles: int) -> None:
    """Over whole cycles no contender profits from its place, and each round has all of them."""
    items = list(range(contenders))
    orders = [rotated(items, number) for number in range(contenders * cycles)]

    assert all(sorted(order) == items for order in orders)
    assert [sum(order[0] == item for order in orders) for item in items] == [cycles] * contenders
