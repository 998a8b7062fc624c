"""Correlation of nights: how it is estimated, and that whitening takes it out."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.detection.maximum_null import MAX_NIGHTS
from orchestrator.core.detection.split_scan import find_split
from orchestrator.core.detection.whitening import (
    SerialCorrelation,
    estimate_correlation,
    normal_scores,
    whiten,
)

QUIET = MAX_NIGHTS - 12


def autoregressive(source: random.Random, count: int, phi: float) -> list[float]:
    values, step = [source.gauss(0, 1)], math.sqrt(1 - phi * phi)
    while len(values) < count:
        values.append(phi * values[-1] + step * source.gauss(0, 1))
    return values


def wandering(source: random.Random, count: int) -> list[float]:
    """A level that wanders slowly, and a scatter of twice its variance about it."""
    level = autoregressive(source, count, 0.9)
    return [math.sqrt(1 / 3) * each + math.sqrt(2 / 3) * source.gauss(0, 1) for each in level]


def lag_one(values: list[float]) -> float:
    scores = normal_scores(values)
    power = math.fsum(score * score for score in scores)
    return math.fsum(a * b for a, b in pairwise(scores)) / power


def correlation_of(values: list[float]) -> SerialCorrelation:
    return estimate_correlation(normal_scores(values))


@given(st.floats(0.02, 0.9), st.floats(0.001, 0.09))
def test_the_memory_belongs_to_the_autocorrelation(first: float, more: float) -> None:
    """Box and others, 3.4.3: the first autocorrelation of an ARMA(1,1) process."""
    phi = first + more
    theta = SerialCorrelation(first, phi).memory

    assert 0 <= theta < 1
    found = (1 - phi * theta) * (phi - theta) / (1 + theta * theta - 2 * phi * theta)
    assert found == pytest.approx(first, abs=1e-6)


def test_estimates_err_to_the_cautious_side() -> None:
    source = random.Random(1)
    found = [correlation_of(autoregressive(source, 148, 0.5)).first for _ in range(40)]

    assert 0.5 < median(found) < 0.62


def test_a_wandering_level_is_told_from_its_scatter() -> None:
    """Its autocorrelation is small and lasts: AR(1) would forget it after two nights."""
    source = random.Random(2)
    found = [correlation_of(wandering(source, 148)) for _ in range(40)]

    assert 0.2 < median(each.first for each in found) < 0.5
    assert median(each.decay for each in found) > 0.75


@pytest.mark.parametrize("noise", [wandering, lambda s, n: autoregressive(s, n, 0.7)])
def test_whitened_nights_do_not_depend_on_each_other(noise: object) -> None:
    source = random.Random(3)
    series = [noise(source, MAX_NIGHTS) for _ in range(30)]  # type: ignore[operator]

    before = median(lag_one(values) for values in series)
    after = median(lag_one(list(whiten(values, QUIET).surprises)) for values in series)

    assert before > 0.2
    assert abs(after) < 0.1


def test_independent_nights_stay_as_they_are_or_nearly() -> None:
    source = random.Random(4)
    found = [correlation_of([source.gauss(0, 1) for _ in range(QUIET)]).first for _ in range(60)]

    assert sum(first == 0 for first in found) > len(found) / 2
    assert max(found) < 0.4


def test_a_spike_is_not_followed_by_what_it_announced() -> None:
    """However far off it lies: the nights after it are as they always were."""
    for at in range(MAX_NIGHTS - 12, MAX_NIGHTS):
        values = wandering(random.Random(5), MAX_NIGHTS)
        values[at] -= 1e6
        split = find_split(values)
        assert split is not None
        assert split.p_value > 0.001


def test_correlated_noise_finds_no_more_than_it_may() -> None:
    """Of quiet series at most 5 % have p of at most 5 %, four standard errors beside."""
    source, count = random.Random(6), 300
    for phi in (0.3, 0.5):
        splits = [find_split(autoregressive(source, MAX_NIGHTS, phi)) for _ in range(count)]
        found = sum(split is not None and split.p_value <= 0.05 for split in splits)
        assert found / count <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / count)
