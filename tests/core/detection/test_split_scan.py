"""One series: what is found, what is not, and how often chance finds something."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from statistics import NormalDist

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
from orchestrator.core.detection.one_sided import block_deviate, loudness
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


def two_modes(source: random.Random, count: int) -> list[float]:
    return [(0.0 if source.random() > 1 / 7 else -2.7) + source.gauss(0, 0.4) for _ in range(count)]


def test_a_level_between_two_modes_is_found() -> None:
    """Each of its nights is one of the lower seventh, which happens; seven in a row are not."""
    found = 0
    for seed in range(20):
        values = two_modes(random.Random(seed), 160)
        values[-7:] = [value - 2.05 for value in values[-7:]]
        split = find_split(values, 0.9)
        assert split is not None
        found += split.p_value < 1e-3

    assert found >= 17


def test_the_error_budget_goes_to_the_side_that_is_asked_for() -> None:
    values = [*white(1, 100), *(value - 1.5 for value in white(2, 5))]

    p_values = [split.p_value for share in (0.9, 0.5, 0.1) if (split := find_split(values, share))]

    assert p_values[0] < p_values[1] < p_values[2]
    assert p_values[0] * 0.9 == pytest.approx(p_values[2] * 0.1)


def test_an_episode_that_passed_asks_for_more_proof() -> None:
    calm, new = white(3, 154), [value - 2 for value in white(4, 6)]
    before = find_split([*calm, *new])
    calm[60:66] = [value - 3 for value in calm[60:66]]
    after = find_split([*calm, *new])

    assert before is not None
    assert after is not None
    assert after.p_value > 3 * before.p_value


def test_loud_nights_in_a_row_ask_for_more_proof() -> None:
    source = random.Random(5)
    steady = normal_scores([source.gauss(0, 1) for _ in range(148)])
    loud = normal_scores([source.gauss(0, 4 if n % 30 < 8 else 0.5) for n in range(148)])

    assert loudness(steady) < 0.1
    assert loudness(loud) > 0.3


@given(st.integers(3, 12), st.integers(20, 160))
def test_the_chance_of_a_block_is_that_of_drawing_it(new: int, count: int) -> None:
    """All of them among the highest: only one choice of places."""
    deviate = block_deviate(new, new, count)

    assert NormalDist().cdf(-deviate) == pytest.approx(1 / math.comb(count, new), rel=1e-6)
    assert block_deviate(count, new, count) == 0
