"""Schedules of the load test: they meet their rate, and are the same for the same seed."""

from __future__ import annotations

from itertools import pairwise
from statistics import mean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.base.arrivals import (
    CONSTANT,
    GAMMA,
    POISSON,
    OpenLoad,
    arrival_times,
    share_of,
    share_of_count,
    sweep_rates,
)

spacings = st.sampled_from([CONSTANT, POISSON, GAMMA])
rates = st.floats(0.5, 200)


def load(spacing: str, rate: float, duration_s: float, final: float | None = None) -> OpenLoad:
    return OpenLoad(
        spacing=spacing,
        rate=rate,
        final_rate=rate if final is None else final,
        duration_s=duration_s,
        burstiness=0.5,
    )


@given(spacings, rates, rates, st.floats(0.5, 20), st.integers(0, 10**6))
def test_a_schedule_ascends_within_its_duration_and_meets_its_rate(
    spacing: str, rate: float, final: float, duration_s: float, seed: int
) -> None:
    asked = load(spacing, rate, duration_s, final)

    times = arrival_times(asked, seed)

    assert all(earlier <= later for earlier, later in pairwise(times))
    assert times[0] >= 0
    assert times[-1] <= duration_s
    assert len(times) == max(1, round((rate + final) / 2 * duration_s))
    assert times == arrival_times(asked, seed)


@given(spacings, rates, st.integers(1, 7), st.integers(0, 99))
def test_shares_are_the_whole(spacing: str, rate: float, members: int, seed: int) -> None:
    times = arrival_times(load(spacing, rate, 5.0), seed)

    shares = [share_of(times, member, members) for member in range(members)]

    assert sorted(time for share in shares for time in share) == list(times)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(0, 1000), st.integers(1, 9))
def test_streams_are_shared_out(concurrency: int, members: int) -> None:
    shares = [share_of_count(concurrency, member, members) for member in range(members)]

    assert sum(shares) == concurrency
    assert max(shares) - min(shares) <= 1


@pytest.mark.parametrize(
    "spacing, variation", [(CONSTANT, 0.0), (POISSON, 1.0), (GAMMA, 0.5**-0.5)]
)
def test_gaps_vary_as_their_distribution_says(spacing: str, variation: float) -> None:
    """The coefficient of variation of gamma gaps is 1 / sqrt(shape)."""
    times = arrival_times(load(spacing, 1000.0, 20.0), seed=3)
    gaps = [later - earlier for earlier, later in pairwise(times)]

    assert pstdev(gaps) / mean(gaps) == pytest.approx(variation, rel=0.05, abs=1e-6)


def test_a_ramp_has_the_rate_of_its_line_at_any_time() -> None:
    times = arrival_times(load(CONSTANT, 10.0, 10.0, final=110.0), seed=0)

    in_each_second = [sum(second <= time < second + 1 for time in times) for second in range(10)]

    assert in_each_second == pytest.approx([15 + 10 * second for second in range(10)], abs=1)


@given(rates, rates, st.integers(1, 12))
def test_a_sweep_goes_from_its_first_rate_to_its_last_at_equal_ratios(
    first: float, last: float, steps: int
) -> None:
    swept = sweep_rates(first, last, steps)

    assert len(swept) == steps
    assert swept[0] == first
    assert swept[-1] == (last if steps > 1 else first)
    ratios = [later / earlier for earlier, later in pairwise(swept)]
    assert ratios == pytest.approx([(last / first) ** (1 / max(1, steps - 1))] * (steps - 1))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), 1e9])
def test_rates_that_are_none_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"above 0|at most"):
        arrival_times(load(POISSON, rate, 1.0), 0)


def test_an_unknown_spacing_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown spacing 'bursty'"):
        arrival_times(load("bursty", 1.0, 1.0), 0)
