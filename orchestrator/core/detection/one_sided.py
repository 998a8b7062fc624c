"""Two statistics of each split to one side, and what a series itself says against believing them.

The sum of scores is the best test of a level that moved among noise of one mode. Where noise has
two modes, a new level between them is no sum: each of its nights is one of the lower seventh,
which happens, and seven in a row are not. So all splits are asked, too, how likely it is that so
many new nights all lie as low (an exact test by the hypergeometric distribution).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from operator import mul, sub
from statistics import NormalDist

from orchestrator.core.detection.maximum_null import FEWEST_NEW, most_new, split_weight
from orchestrator.core.detection.whitening import ROUNDING

# What the second test must be surer by: so it costs the first little, under noise of one mode.
BLOCK_HANDICAP = 0.5
# Noise that is loud for some nights and quiet for others makes sums of some nights larger than
# chance does: by so much for each part of its volatility's autocorrelation. Both were set by
# counting false alarms (docs/benchmarks.md).
LOUD_WEIGHT, MOST_LOUD = 3.0, 0.2
LOUD_LAGS = 3
LOUD_SLACK = 0.027
USUAL_EPISODE = 2.9  # the largest of some hundred nights that chance alone makes
_NORMAL = NormalDist()


def largest_sum(scores: Sequence[float], response: Sequence[float]) -> tuple[int, float]:
    """(new nights, weighted sum of their scores in standard deviations under random order), the
    largest. ``response``: what a new level adds to its first, second, ... night.
    """
    count = len(scores)
    variance = sum(map(mul, scores, scores)) / (count - 1)
    totals = tuple(accumulate(response))
    squares = tuple(accumulate(weight * weight for weight in response))
    best = FEWEST_NEW, 0.0
    for new in range(FEWEST_NEW, most_new(count) + 1):
        weights, total = squares[new - 1], totals[new - 1]
        spread = math.sqrt(variance * (weights * count - total * total) / count)
        if spread <= ROUNDING:
            continue
        found = split_weight(new) * sum(map(mul, response, scores[-new:])) / spread
        if found > best[1]:
            best = new, found
    return best


def highest_block(values: Sequence[float]) -> tuple[int, float]:
    """(new nights, statistic): that all of these lie so high, as a normal deviate."""
    count, ordered = len(values), sorted(values)
    best = FEWEST_NEW, 0.0
    lowest = math.inf
    for new in range(1, most_new(count) + 1):
        lowest = min(lowest, values[-new])
        if new < FEWEST_NEW:
            continue
        as_high = count - bisect_left(ordered, lowest)
        found = split_weight(new) * block_deviate(as_high, new, count) - BLOCK_HANDICAP
        if found > best[1]:
            best = new, found
    return best


@lru_cache(maxsize=4096)
def block_deviate(as_high: int, new: int, count: int) -> float:
    """How unlikely it is that ``new`` of ``count`` values in random order are all among the
    ``as_high`` highest, as a normal deviate; 0 where it is not unlikely.
    """
    chance = math.comb(max(as_high, new), new) / math.comb(count, new)
    return -_NORMAL.inv_cdf(chance) if chance < 0.5 else 0.0


def loudness(scores: Sequence[float]) -> float:
    """What the statistic loses where loud nights follow loud ones, from 0 for steady noise on."""
    loud = [abs(score) for score in scores]
    count, mean = len(loud), sum(loud) / len(loud)
    off = [value - mean for value in loud]
    power = sum(map(mul, off, off)) / count
    if power <= ROUNDING or count <= LOUD_LAGS:
        return 0.0
    lags = [sum(map(mul, off, off[lag:])) / (count - lag) for lag in range(1, LOUD_LAGS + 1)]
    chance = 1 / math.sqrt(LOUD_LAGS * count) - LOUD_SLACK
    beyond = sum(lags) / len(lags) / power - chance
    return float(LOUD_WEIGHT * min(max(beyond, 0.0), MOST_LOUD))


def earlier_episode(scores: Sequence[float], quiet: int) -> float:
    """By how much the largest sum of some nights in a row among the first ``quiet``, which passed,
    exceeds what chance makes: a level that came and went before is no proof tonight.
    """
    count = len(scores)
    variance = sum(map(mul, scores, scores)) / (count - 1)
    if variance <= ROUNDING:
        return 0.0
    sums = [0.0, *accumulate(scores[:quiet])]
    largest = 0.0
    for nights in range(FEWEST_NEW, min(most_new(count), quiet) + 1):
        spread = math.sqrt(variance * nights * (count - nights) / count)
        found = split_weight(nights) * max(map(sub, sums[nights:], sums)) / spread
        largest = max(largest, found)
    return max(0.0, largest - USUAL_EPISODE)
