"""The best split of a series into nights before and nights since, and how likely chance finds it.

Values become normal scores of their ranks, so that the test is exact for any noise whose nights do
not depend on each other: bimodal, skewed, with spikes. For each number of new nights the sum of
their scores is divided by its standard deviation under random order (a two-sample van der Waerden
test), beside the question whether all of them lie to one side (``one_sided``); the largest of all
is the statistic. Its null distribution is that of the maximum, see ``maximum_null``; the number of
splits that were tried is thereby paid for.

Nights that do depend on each other are whitened first, see ``whitening``; what else a series
shows against belief, episodes that passed and volatility that lasts, is taken off the statistic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.detection.maximum_null import (
    FEWEST_NEW,
    MAX_NIGHTS,
    MIN_NIGHTS,
    most_new,
    p_value,
)
from orchestrator.core.detection.one_sided import (
    earlier_episode,
    highest_block,
    largest_sum,
    loudness,
)
from orchestrator.core.detection.whitening import (
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
    that of the values before. ``statistic``: below 0 for a fall. ``p_value``: how often chance
    alone finds a split as good, either way.
    """

    new_nights: int
    before: float
    since: float
    statistic: float
    p_value: float

    @property
    def shift(self) -> float:
        return self.since - self.before


def find_split(values: Sequence[float], falls: float = 0.5) -> Split | None:
    """The best split of the latest ``MAX_NIGHTS`` finite ``values``, oldest first.

    ``falls``: which share of false alarms may be falls, from 0 to 1 (exclusive); the others are
    rises. None for fewer than ``MIN_NIGHTS`` values: no split could be told from chance.
    """
    recent = tuple(values[-MAX_NIGHTS:])
    count = len(recent)
    if count < MIN_NIGHTS:
        return None
    quiet = count - most_new(count)
    whitened = whiten(recent, quiet)
    surprises, scores = whitened.surprises, normal_scores(whitened.surprises)
    sigma, loud = noise_width(surprises[:quiet]), loudness(scores[:quiet])
    sides = []
    for sign, share in ((-1, falls), (1, 1 - falls)):
        turned = [sign * value for value in surprises], [sign * score for score in scores]
        new, found = _best_split(*turned, whitened.response, sigma)
        found -= loud + earlier_episode(turned[1], quiet)
        sides.append((min(1.0, p_value(found, count) / share), -found, sign, new))
    chance, lost, sign, new = min(sides)
    if chance <= WORTH_LOCATING:
        new = _locate(recent)
    return Split(
        new_nights=new,
        before=median_of(recent[:-new]),
        since=median_of(recent[-new:]),
        statistic=-sign * lost,
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


def _best_split(
    values: Sequence[float], scores: list[float], response: Sequence[float], sigma: float
) -> tuple[int, float]:
    """(new nights, statistic) of the rise that stands out most, spikes among the new left out."""
    for _ in range(MOST_SPIKES):
        new, _ = largest_sum(scores, response)
        spike = _spike(values[-new:], scores[-new:], sigma)
        if spike is None:
            break
        scores[spike - new] = 0.0
    by_sum, by_block = largest_sum(scores, response), highest_block(values)
    return by_sum if by_sum[1] >= by_block[1] else by_block


def _spike(values: Sequence[float], scores: Sequence[float], sigma: float) -> int | None:
    """Which of the new nights lies far above all others."""
    counted = [n for n, score in enumerate(scores) if score]
    ordered = sorted(counted, key=values.__getitem__)
    if len(ordered) < 2:
        return None
    gap = values[ordered[-1]] - values[ordered[-2]]
    return ordered[-1] if gap > SPIKE_GAP_SIGMAS * sigma > 0 else None


def robust_sigma(values: Sequence[float]) -> float:
    """The standard deviation of normal noise with the same median absolute deviation."""
    middle = median_of(values)
    return SIGMA_OF_MAD * median_of([abs(value - middle) for value in values])
