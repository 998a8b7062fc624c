"""Statistics of comparisons against tables, against brute force, and against simulated noise."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.history.statistics import (
    MIN_NOISE_RUNS,
    estimate_ratio,
    holm_adjust,
    observed_noise,
    student_cdf,
    student_quantile,
)

positive = st.floats(0.5, 2.0)


@pytest.mark.parametrize(
    "freedom,expected", [(1, 12.706), (2, 4.303), (5, 2.571), (10, 2.228), (30, 2.042)]
)
def test_student_is_that_of_the_tables(freedom: int, expected: float) -> None:
    assert round(student_quantile(0.975, freedom), 3) == expected
    assert student_cdf(expected, freedom) == pytest.approx(0.975, abs=1e-4)
    assert student_cdf(-expected, freedom) == pytest.approx(0.025, abs=1e-4)


@given(st.lists(positive, min_size=4, max_size=5, unique=True), st.integers(0, 99))
def test_the_rank_test_is_that_of_all_arrangements(values: list[float], seed: int) -> None:
    """p of the exact test: how many divisions of all values are at least as far apart."""
    source = random.Random(seed)
    other = [value * source.uniform(0.5, 2) for value in values]
    if len({*values, *other}) < 2 * len(values):
        return
    found = estimate_ratio(values, other, None)
    assert found is not None

    def above(a: tuple[float, ...], b: tuple[float, ...]) -> int:
        return sum(later > earlier for earlier in a for later in b)

    every = [*values, *other]
    half = len(values) ** 2 / 2
    seen = abs(above(tuple(values), tuple(other)) - half)
    divisions = list(itertools.combinations(every, len(values)))
    extreme = [a for a in divisions if abs(above(a, tuple(set(every) - set(a))) - half) >= seen]
    assert found.p == pytest.approx(min(1.0, len(extreme) / len(divisions)))


@given(st.lists(positive, min_size=1, max_size=12), st.lists(positive, min_size=1, max_size=12))
def test_a_ratio_turns_over_with_its_sides(a: list[float], b: list[float]) -> None:
    """B over A is the inverse of A over B, with the same p, and lies in its interval."""
    noise = observed_noise([1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01, 0.99])
    one, other = estimate_ratio(a, b, noise), estimate_ratio(b, a, noise)
    assert one is not None
    assert other is not None
    assert one.p == pytest.approx(other.p, abs=1e-9)
    assert one.low is not None
    assert one.high is not None
    assert other.high is not None
    assert one.low == pytest.approx(1 / other.high)
    assert one.low <= one.ratio * (1 + 1e-12)
    assert one.ratio <= one.high * (1 + 1e-12)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """95 %, by ranks and by the noise of earlier runs alike; 5 % is found at a noise of 1 %."""
    source = random.Random(3)
    held = {1: 0, 8: 0}
    rounds = 400
    for _ in range(rounds):
        for size in held:
            a = [math.exp(source.gauss(0, 0.01)) for _ in range(size)]
            b = [1.1 * math.exp(source.gauss(0, 0.01)) for _ in range(size)]
            noise = observed_noise([math.exp(source.gauss(0, 0.01)) for _ in range(20)])
            found = estimate_ratio(a, b, noise)
            assert found is not None
            assert found.low is not None
            assert found.high is not None
            held[size] += found.low <= 1.1 <= found.high
    assert all(0.92 <= count / rounds <= 0.99 for count in held.values()), held


def test_noise_ignores_spikes_and_needs_enough_runs() -> None:
    source = random.Random(4)
    values = [100 * math.exp(source.gauss(0, 0.01)) for _ in range(40)]
    clean = observed_noise(values)
    assert clean is not None
    assert 0.006 < clean.sigma < 0.014
    spiked = observed_noise([*values[:-3], 300.0, 20.0, 500.0])
    assert spiked is not None
    assert spiked.sigma < 1.5 * clean.sigma
    assert observed_noise(values[: MIN_NOISE_RUNS - 1]) is None
    assert observed_noise([*values, 0.0]) is None


def test_what_has_no_ratio_gets_none() -> None:
    assert estimate_ratio([], [1.0], None) is None
    assert estimate_ratio([0.0], [1.0], None) is None
    assert estimate_ratio([-1.0], [1.0], None) is None


def test_holm_on_the_known_example() -> None:
    """Holm 1979: 0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02."""
    assert holm_adjust([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_adjust([]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_never_lowers_a_p(p_values: list[float]) -> None:
    for before, after in zip(p_values, holm_adjust(p_values), strict=True):
        assert before <= after <= 1
