"""The best split of a series into nights before and nights since, and how likely chance finds it.

Values become normal scores of their ranks, so that the test is exact for any noise whose nights do
not depend on each other: bimodal, skewed, with spikes. For each number of new nights the sum of
their scores is divided by its standard deviation under random order; the largest of these is the
statistic (a two-sample van der Waerden test, maximised over the split). Its null distribution is
that of the maximum, see ``maximum_null``; the number of splits that were tried is thereby paid for.

Nights that do depend on each other are whitened first, with the lag-1 autocorrelation of the nights
before the scanned ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist

from orchestrator.core.detection.maximum_null import (
    FEWEST_NEW,
    MAX_NIGHTS,
    MIN_NIGHTS,
    most_new,
    p_value,
)

# Autocorrelation counts from this many standard errors (1/sqrt(n)) on; estimates of it are low
# about as often as high, and a low one raises false alarms: 1.1 standard errors are added, by which
# resampled real series raise about as many as independent ones (docs/benchmarks.md).
CORRELATED_FROM_SE = 1.3
CAUTION_SE = 1.1
MAX_CORRELATION = 0.95
WORTH_LOCATING = 0.05  # below this p it matters where the split is
# A new night that lies this many deviations beyond every other new one is a spike: an event, and no
# evidence of a new level. The deviation is that of normal noise with the same 5 % and 95 % points,
# so that the second mode of bimodal noise counts as noise and rare spikes do not.
SPIKE_GAP_SIGMAS = 4.0
MOST_SPIKES = 3
SIGMAS_BETWEEN_POINTS = 3.29
SIGMA_OF_MAD = 1.4826  # normal noise
ROUNDING = 1e-9  # of the scores of equal values


@dataclass(frozen=True, slots=True)
class Split:
    """The best split. ``new_nights``: how many values lie behind it. ``shift``: their median minus
    that of the values before. ``p_value``: how often chance alone finds a split as good.
    """

    new_nights: int
    before: float
    since: float
    statistic: float
    p_value: float

    @property
    def shift(self) -> float:
        return self.since - self.before


def find_split(values: Sequence[float]) -> Split | None:
    """The best split of the latest ``MAX_NIGHTS`` finite ``values``, oldest first.

    None for fewer than ``MIN_NIGHTS`` values: no split could be told from chance.
    """
    recent = tuple(values[-MAX_NIGHTS:])
    if len(recent) < MIN_NIGHTS:
        return None
    innovations = _whitened(recent)
    new, statistic = _best_split(innovations, normal_scores(innovations))
    chance = p_value(abs(statistic), len(innovations))
    if chance <= WORTH_LOCATING:
        new = _locate(recent)
    return Split(
        new_nights=new,
        before=median_of(recent[:-new]),
        since=median_of(recent[-new:]),
        statistic=statistic,
        p_value=chance,
    )


def _locate(values: Sequence[float]) -> int:
    """How many nights are new: the split that leaves the least absolute deviation from the two
    medians. Ranks decide whether there is a change; how far values lie apart, where.
    """
    return min(
        range(FEWEST_NEW, most_new(len(values)) + 1),
        key=lambda new: _deviation(values[:-new]) + _deviation(values[-new:]),
    )


def _deviation(values: Sequence[float]) -> float:
    middle = median_of(values)
    return math.fsum(abs(value - middle) for value in values)


def _best_split(values: Sequence[float], scores: list[float]) -> tuple[int, float]:
    """(new nights, statistic) of the split that stands out most, spikes among the new left out."""
    sigma = _noise_width(values[: len(values) - most_new(len(values))])
    for _ in range(MOST_SPIKES):
        new, _ = _largest_sum(scores)
        spike = _spike(values[-new:], scores[-new:], sigma)
        if spike is None:
            break
        scores[spike - new] = 0.0
    return _largest_sum(scores)


def _noise_width(values: Sequence[float]) -> float:
    ordered, outside = sorted(values), len(values) // 20
    return (ordered[-1 - outside] - ordered[outside]) / SIGMAS_BETWEEN_POINTS


def _spike(values: Sequence[float], scores: Sequence[float], sigma: float) -> int | None:
    """Which of the new nights lies far beyond all others in the direction of the split."""
    sign = 1 if sum(scores) > 0 else -1
    counted = [n for n, score in enumerate(scores) if score]
    ordered = sorted(counted, key=lambda n: sign * values[n])
    if len(ordered) < 2:
        return None
    gap = sign * (values[ordered[-1]] - values[ordered[-2]])
    return ordered[-1] if gap > SPIKE_GAP_SIGMAS * sigma > 0 else None


def normal_scores(values: Sequence[float]) -> list[float]:
    """Blom's normal scores of the ranks; equal values share the mean of theirs."""
    table = _score_table(len(values))
    order = sorted(range(len(values)), key=values.__getitem__)
    scores = [0.0] * len(values)
    first = 0
    while first < len(order):
        last = first + 1
        while last < len(order) and values[order[last]] == values[order[first]]:
            last += 1
        shared = table[first] if last == first + 1 else sum(table[first:last]) / (last - first)
        for position in order[first:last]:
            scores[position] = shared
        first = last
    return scores


@lru_cache(maxsize=MAX_NIGHTS)
def _score_table(count: int) -> tuple[float, ...]:
    normal = NormalDist()
    return tuple(normal.inv_cdf((rank + 0.625) / (count + 0.25)) for rank in range(count))


def _largest_sum(scores: Sequence[float]) -> tuple[int, float]:
    """(new nights, sum of their scores in standard deviations under random order), the largest."""
    count = len(scores)
    variance = math.fsum(score * score for score in scores) / count
    best, total = (FEWEST_NEW, 0.0), 0.0
    for new in range(1, most_new(count) + 1):
        total += scores[-new]
        spread = math.sqrt(variance * new * (count - new) / (count - 1))
        if new >= FEWEST_NEW and spread > ROUNDING and abs(total / spread) > abs(best[1]):
            best = new, total / spread
    return best


def _whitened(values: Sequence[float]) -> Sequence[float]:
    correlation = correlation_before(values)
    if not correlation:
        return values
    return [b - correlation * a for a, b in pairwise(values)]


def correlation_before(values: Sequence[float]) -> float:
    """The lag-1 autocorrelation, by rank, of the values before those that a split may make new.

    Those are left out because a change would pass for correlation. 0 where it cannot be told from
    none. Corrected for the bias -(1 + 3 r)/n of the estimate (Kendall 1954).
    """
    before = values[: len(values) - most_new(len(values))]
    count = len(before)
    scores = normal_scores(before)
    power = math.fsum(score * score for score in scores)
    if power < ROUNDING:
        return 0.0
    raw = math.fsum(a * b for a, b in pairwise(scores)) / power
    found, error = raw + (1 + 3 * raw) / count, 1 / math.sqrt(count)
    if found < CORRELATED_FROM_SE * error:
        return 0.0
    return min(found + CAUTION_SE * error, MAX_CORRELATION)


def robust_sigma(values: Sequence[float]) -> float:
    """The standard deviation of normal noise with the same median absolute deviation."""
    middle = median_of(values)
    return SIGMA_OF_MAD * median_of([abs(value - middle) for value in values])


def median_of(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
