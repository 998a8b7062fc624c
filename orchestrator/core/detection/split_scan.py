"""The best split of a series into nights before and nights since, and how likely chance finds it.

Values become normal scores of their ranks, so that the test is exact for any noise whose nights do
not depend on each other: bimodal, skewed, with spikes. For each number of new nights the sum of
their scores is divided by its standard deviation under random order; the largest of these is the
statistic (a two-sample van der Waerden test, maximised over the split). Its null distribution is
that of the maximum, see ``maximum_null``; the number of splits that were tried is thereby paid for.

Nights that do depend on each other are whitened first, see ``whitening``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.core.base.dataclass import dataclass
from orchestrator.core.detection.maximum_null import (
    FEWEST_NEW,
    MAX_NIGHTS,
    MIN_NIGHTS,
    most_new,
    p_value,
    split_weight,
)
from orchestrator.core.detection.whitening import (
    ROUNDING,
    median_of,
    noise_width,
    normal_scores,
    whiten,
)

WORTH_LOCATING = 0.05  # below this p it matters where the split is
# A new night that lies this many deviations beyond every other new one is a spike: an event, and no
# evidence of a new level.
SPIKE_GAP_SIGMAS = 4.0
MOST_SPIKES = 3
SIGMA_OF_MAD = 1.4826  # normal noise


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
    surprises = whiten(recent, len(recent) - most_new(len(recent)))
    new, statistic = _best_split(surprises, normal_scores(surprises))
    chance = p_value(abs(statistic), len(recent))
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
    sigma = noise_width(values[: len(values) - most_new(len(values))])
    for _ in range(MOST_SPIKES):
        new, _ = _largest_sum(scores)
        spike = _spike(values[-new:], scores[-new:], sigma)
        if spike is None:
            break
        scores[spike - new] = 0.0
    return _largest_sum(scores)


def _spike(values: Sequence[float], scores: Sequence[float], sigma: float) -> int | None:
    """Which of the new nights lies far beyond all others in the direction of the split."""
    sign = 1 if sum(scores) > 0 else -1
    counted = [n for n, score in enumerate(scores) if score]
    ordered = sorted(counted, key=lambda n: sign * values[n])
    if len(ordered) < 2:
        return None
    gap = sign * (values[ordered[-1]] - values[ordered[-2]])
    return ordered[-1] if gap > SPIKE_GAP_SIGMAS * sigma > 0 else None


def _largest_sum(scores: Sequence[float]) -> tuple[int, float]:
    """(new nights, sum of their scores in standard deviations under random order, weighted), the
    largest.
    """
    count = len(scores)
    variance = math.fsum(score * score for score in scores) / count
    best, total = (FEWEST_NEW, 0.0), 0.0
    for new in range(1, most_new(count) + 1):
        total += scores[-new]
        spread = math.sqrt(variance * new * (count - new) / (count - 1))
        if new < FEWEST_NEW or spread <= ROUNDING:
            continue
        found = split_weight(new) * total / spread
        if abs(found) > abs(best[1]):
            best = new, found
    return best


def robust_sigma(values: Sequence[float]) -> float:
    """The standard deviation of normal noise with the same median absolute deviation."""
    middle = median_of(values)
    return SIGMA_OF_MAD * median_of([abs(value - middle) for value in values])
