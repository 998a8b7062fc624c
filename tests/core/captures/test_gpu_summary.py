"""Figures of power, clocks and memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.captures.gpu_summary import (
    MAX_DISAGREEMENT,
    REASONS,
    clock_figures,
    memory_figures,
    power_figures,
)


@given(watts=st.floats(50, 1200), wrong=st.floats(0.5, 1.5), seconds=st.integers(3, 100))
def test_counter_and_integral_check_each_other(watts: float, wrong: float, seconds: int) -> None:
    """Readings that are ``wrong`` times what the counter says are told beyond 5 %."""
    power = [(float(t), watts * wrong) for t in range(seconds)]
    energy = [(float(t), 1000 + watts * t) for t in range(seconds)]
    found = power_figures(power, energy)
    assert found.joules == pytest.approx(watts * (seconds - 1))
    assert found.disagreement == pytest.approx(wrong - 1, abs=1e-9)
    assert bool(found.problem) == (abs(found.disagreement or 0) > MAX_DISAGREEMENT)


@pytest.mark.parametrize(
    "watts, joules, problem",
    [
        ([], [(0.0, 0.0), (9.0, 9.0)], "no power readings"),
        ([(0.0, 9.0), (9.0, 9.0)], [], "no energy counter"),
        ([(0.0, 9.0), (9.0, 9.0)], [(0.0, 5.0), (9.0, 1.0)], "reset"),
        ([(0.0, 9.0), (9.0, 9.0)], [(0.0, 5.0), (9.0, 5.0)], "did not move"),
        ([(0.0, 9.0), (1.0, 9.0)], [(0.0, 0.0), (1.0, 9.0)], "too short"),
    ],
)
def test_what_cannot_be_checked_says_why(
    watts: list[tuple[float, float]], joules: list[tuple[float, float]], problem: str
) -> None:
    assert problem in power_figures(watts, joules).problem


@given(masks=st.lists(st.sampled_from([0, *REASONS]), min_size=2, max_size=60))
def test_parts_of_the_time_add_up_where_one_reason_holds_at_once(masks: list[int]) -> None:
    reasons = [(float(t), mask) for t, mask in enumerate(masks)]
    mhz = [(t, 1000.0 + t) for t, _ in reasons]
    found = clock_figures(mhz, reasons, [])
    assert found is not None
    held = sum(1 for mask in masks[:-1] if mask)
    assert sum(found.held.values()) == pytest.approx(held / (len(masks) - 1))


def test_having_no_work_is_not_the_worst_reason() -> None:
    reasons = [(0.0, 0x1), (8.0, 0x4), (10.0, 0)]
    found = clock_figures([(0.0, 1980.0), (10.0, 345.0)], reasons, [(1.0, 71.0)])
    assert found is not None
    assert found.worst == ("power cap", pytest.approx(0.2))
    assert (found.median_mhz, found.least_mhz, found.hottest_c) == (1162.5, 345.0, 71.0)
    assert clock_figures([], reasons, []) is None


def test_the_peak_of_memory_has_its_moment() -> None:
    found = memory_figures([(0.0, 1.0), (2.0, 8.0), (3.0, 2.0)])
    assert found is not None
    assert (found.first, found.peak, found.peak_at, found.last) == (1.0, 8.0, 2.0, 2.0)
    assert memory_figures([]) is None
