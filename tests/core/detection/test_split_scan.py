"""One series: what is found, what is not, and how often chance finds something."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.detection.maximum_null import (
    CRITICAL,
    LEVELS,
    MAX_NIGHTS,
    MIN_NIGHTS,
    p_value,
)
from orchestrator.core.detection.split_scan import find_split
from orchestrator.core.detection.whitening import normal_scores

figures = st.floats(-1e6, 1e6, allow_nan=False)
series = st.lists(figures, min_size=MIN_NIGHTS, max_size=60)


def white(seed: int, count: int) -> list[float]:
    source = random.Random(seed)
    return [100 + source.gauss(0, 1) for _ in range(count)]


def test_a_step_is_found_where_it_is() -> None:
    values = [*white(1, 100), *(value - 5 for value in white(2, 5))]

    split = find_split(values)

    assert split is not None
    assert split.new_nights == 5
    assert split.p_value < 1e-4
    assert split.shift == pytest.approx(-5, abs=1.5)


def test_a_single_spike_is_no_step() -> None:
    """However far off it lies, on whichever night."""
    for at in range(80, 100):
        values = white(3, 100)
        values[at] -= 1000
        split = find_split(values)
        assert split is not None
        assert split.p_value > 0.01


def test_too_few_nights_are_not_tested() -> None:
    assert find_split(white(1, MIN_NIGHTS - 1)) is None
    assert find_split(white(1, MIN_NIGHTS)) is not None


def test_values_that_never_differ_have_no_change() -> None:
    split = find_split([7.0] * 60)

    assert split is not None
    assert split.p_value == 1.0
    assert split.shift == 0.0


@given(
    st.lists(st.integers(-(10**6), 10**6), min_size=MIN_NIGHTS, max_size=60),
    st.sampled_from([0.25, 2.0, 1024.0]),
)
def test_units_do_not_matter(values: list[int], scale: float) -> None:
    """Bytes or KiB: the same verdict. By powers of two nothing is rounded."""
    a, b = find_split(values), find_split([value * scale for value in values])

    assert a is not None
    assert b is not None
    assert (a.new_nights, a.p_value) == (b.new_nights, b.p_value)


@given(series)
def test_the_mirrored_series_has_the_mirrored_split(values: list[float]) -> None:
    a, b = find_split(values), find_split([-value for value in values])

    assert a is not None
    assert b is not None
    assert a.p_value == pytest.approx(b.p_value)
    assert abs(a.statistic) == pytest.approx(abs(b.statistic))


@given(st.lists(figures, min_size=1, max_size=80))
def test_scores_are_centred_and_ordered(values: list[float]) -> None:
    scores = normal_scores(values)

    assert sum(scores) == pytest.approx(0, abs=1e-9)
    pairs = sorted(zip(values, scores, strict=True))
    assert all(a <= b for (_, a), (_, b) in pairwise(pairs))


@given(st.integers(MIN_NIGHTS, MAX_NIGHTS + 50), st.floats(0, 12), st.floats(0, 12))
def test_p_falls_with_the_statistic(count: int, a: float, b: float) -> None:
    low, high = sorted((a, b))

    assert 0 < p_value(high, count) <= p_value(low, count) <= 1


@pytest.mark.parametrize("count", CRITICAL)
def test_the_table_gives_its_levels_back(count: int) -> None:
    for level, critical in zip(LEVELS, CRITICAL[count], strict=True):
        assert p_value(critical, count) == pytest.approx(level, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("count", [20, 33, 60, 160])
def test_the_table_is_the_distribution_of_the_maximum(count: int) -> None:
    """In random order, one series in twenty has p of at most 0.05; four standard errors."""
    source, orders = random.Random(count), 1000
    found = 0
    for _ in range(orders):
        values = [source.random() for _ in range(count)]
        split = find_split(values)
        assert split is not None
        found += split.p_value <= 0.05

    # Whitening what chance makes look correlated costs a little of it.
    assert 0.02 <= found / orders <= 0.05 + 4 * (0.05 * 0.95 / orders) ** 0.5
