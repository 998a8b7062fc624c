"""Figures for people: short, in units that somebody says, and never in powers of ten needlessly."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.figures import (
    format_bounds,
    format_duration,
    format_figure,
    format_moment,
    format_number,
)

UNITS = st.sampled_from(["", "s", "bytes", "fraction"])


@pytest.mark.parametrize(
    "value, unit, shown",
    [
        (12440.3, "tok/s", "12,440 tok/s"),
        (530931712, "bytes", "506 MiB"),
        (512, "bytes", "512 B"),
        (80 * 2**30, "B", "80 GiB"),
        (0.022, "s", "22 ms"),
        (0.00031, "s", "310 \u00b5s"),
        (1.7, "s", "1.7 s"),
        (83.0, "s", "83 s"),
        (245.0, "s", "4 min 05 s"),
        (7380.0, "s", "2 h 03 min"),
        (0.9643, "fraction", "96.4 %"),
        (0.000234, "fraction", "0.0234 %"),
        (0.012163, "nats/token", "0.01216 nats/token"),
        (7.369e-06, "", "7.369e-06"),
        (3.0, "", "3"),
        (1234567.0, "samples", "1,234,567 samples"),
    ],
)
def test_figures_read_as_people_say_them(value: float, unit: str, shown: str) -> None:
    assert format_figure(value, unit) == shown


def test_moments_are_in_one_zone_for_all_readers() -> None:
    assert format_moment(1_796_050_859.9) == "2026-11-30 15:00 UTC"


@given(st.floats(min_value=1e-3, max_value=1e14))
def test_everyday_numbers_have_no_exponent_and_keep_four_digits(value: float) -> None:
    shown = format_number(value)
    assert not re.search(r"[eE]", shown)
    assert float(shown.replace(",", "")) == pytest.approx(value, rel=6e-4)


@given(st.floats(allow_nan=True, allow_infinity=True), UNITS)
def test_any_number_can_be_shown(value: float, unit: str) -> None:
    assert 0 < len(format_figure(value, unit)) < 60


@given(st.floats(min_value=1e-9, max_value=1e7))
def test_durations_name_a_unit(value: float) -> None:
    assert re.search(r" (ns|\u00b5s|ms|s|min|h)$", format_duration(value))


def test_gates_are_words() -> None:
    assert format_bounds(0.8, None, "fraction") == "at least 80.0 %"
    assert format_bounds(None, 0.5, "nats/token") == "at most 0.5"
    assert format_bounds(0.1, 12000, "tok/s") == "at least 0.1 and at most 12,000"
    assert format_bounds(None, None, "s") == ""
