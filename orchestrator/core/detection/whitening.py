"""Nights that depend on each other, and what of each night the nights before did not announce.

The noise of a machine is often a level that wanders and a scatter about it. Its autocorrelation is
``first * decay ** (lag - 1)``, that of an ARMA(1,1) process (Box, Jenkins, Reinsel and Ljung 2015,
3.4.3); ``decay == first`` is AR(1). Whitened by AR(1) alone, such noise keeps the part that lasts
longest, which is the part that looks like a change.

Of some hundred nights correlation is known badly, and what is thought too small raises false
alarms. So the estimate errs to the other side: by half a standard error at the first lag, and by
beginning from ``USUAL_DECAY`` until the nights say otherwise. By how much was set by counting false
alarms (docs/benchmarks.md).

Times of work on shared machines come in bursts, to one side: what a bad night announces is not what
a good one does. So the correlation after low values and that after high ones are two (a threshold
autoregression: Tong 1990).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from operator import mul
from statistics import NormalDist

LAGS = 6
LAG_WEIGHTS = tuple(0.8**lag for lag in range(LAGS))  # near nights say more of the decay
FROM_SE = 1.0  # correlation counts from so many standard errors (1/sqrt(n)) on
CAUTION_SE = 0.5
USUAL_DECAY, USUAL_WEIGHT_SE = 0.8, 6.0
LARGEST_FIRST, LARGEST_DECAY = 0.93, 0.97
SMALLEST_FIRST = 0.02
LARGEST_SPREAD = 10.0  # of a mean, beside independent nights: for the bias alone
# A night further off than so many deviations announces no more than one at this distance: otherwise
# those after a spike would be expected to follow it, and stand out because they do not.
REACH_SIGMAS = 4.0
SIGMAS_BETWEEN_POINTS = 3.29  # of normal noise, between its 5 % and 95 % points
ROUNDING = 1e-9  # of the scores of equal values


@dataclass(frozen=True, slots=True)
class SerialCorrelation:
    """Autocorrelation of nights: ``first`` at a distance of one, times ``decay`` a night more.
    ``first`` 0: nights do not depend on each other.
    """

    first: float = 0.0
    decay: float = 0.0

    @property
    def memory(self) -> float:
        """The moving-average coefficient of the process, from 0 to below 1: how much of the last
        surprise the next expectation forgets. 0 is AR(1).
        """
        if self.decay <= self.first:
            return 0.0
        b = (1 + self.decay**2 - 2 * self.decay * self.first) / (self.decay - self.first)
        return 2 / (b + math.sqrt(max(b * b - 4, 0.0)))

    def response(self, count: int) -> tuple[float, ...]:
        """What a new level adds to the surprises of its first ``count`` nights, the first as 1: the
        nights after it are announced in part by those before.
        """
        adds, memory = [1.0], self.memory
        while len(adds) < count:
            adds.append(1 - self.decay + memory * adds[-1] if self.first else 1.0)
        return tuple(adds)


class After(Enum):
    """Which nights announce: all, those below the middle, or those above it."""

    ANY = "any"
    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Whitened:
    """``surprises``: what each value adds to what those before it announced. ``response``: what a
    new level adds to the surprises of its first, second, ... night.
    """

    surprises: Sequence[float]
    response: tuple[float, ...]


def whiten(values: Sequence[float], quiet: int) -> Whitened:
    """Take out of ``values`` what those before announced.

    ``quiet``: so many of the first values hold no change. The correlation is theirs alone, because
    a change would pass for correlation.
    """
    before = values[:quiet]
    scores = normal_scores(before)
    low, high = (estimate_correlation(scores, after) for after in (After.LOW, After.HIGH))
    response = estimate_correlation(scores).response(len(values) - quiet)
    if not low.first and not high.first:
        return Whitened(values, response)
    both = (low.memory + high.memory) / 2
    after = {-1: (low.decay, low.memory), 0: (0.0, both), 1: (high.decay, high.memory)}
    middle, reach = median_of(before), REACH_SIGMAS * noise_width(before)
    surprises = [values[0] - middle]
    for last in values[:-1]:
        off = last - middle
        decay, memory = after[(off > 0) - (off < 0)]
        announced = decay * _within(reach, off) - memory * _within(reach, surprises[-1])
        surprises.append(values[len(surprises)] - middle - announced)
    return Whitened(surprises, response)


def _within(reach: float, value: float) -> float:
    return value if -reach <= value <= reach else math.copysign(reach, value)


def estimate_correlation(scores: Sequence[float], after: After = After.ANY) -> SerialCorrelation:
    """The autocorrelation of values with these normal scores, on the cautious side; none where it
    is small.
    """
    count = len(scores)
    lags = _autocorrelations(scores, after)
    if not any(lags):
        return SerialCorrelation()
    error = 1 / math.sqrt(count)
    # The mean that is taken off is that of the values: each lag is too small by its variance.
    first, (near, far) = max(lags[0], 0.0), _weighted(lags)
    decay = min(max(far / near, 0.0), 0.9) if near > 0 else 0.0
    bias = min(1 + 2 * first / (1 - decay), LARGEST_SPREAD) / count
    lags = [lag + bias for lag in lags]
    near, far = _weighted(lags)
    together = near / math.sqrt(math.fsum(weight * weight for weight in LAG_WEIGHTS))
    if near <= 0 or max(lags[0], together) < FROM_SE * error:
        return SerialCorrelation()
    prior = USUAL_WEIGHT_SE * error
    decay = (max(far, 0.0) + prior * USUAL_DECAY) / (near + prior)
    first = min(max(lags[0] + CAUTION_SE * error, SMALLEST_FIRST), LARGEST_FIRST)
    return SerialCorrelation(first, min(max(decay, first), LARGEST_DECAY))


def _autocorrelations(scores: Sequence[float], after: After) -> list[float]:
    """At distances of 1 to ``LAGS + 1``; zeros where all are equal. After low
    nights alone: the regression on these, which under normal noise is the same.
    """
    announcing = scores
    if after is not After.ANY:
        limit = min if after is After.LOW else max
        announcing = [limit(score, 0.0) for score in scores]
    power = sum(map(mul, announcing, announcing))
    if power < ROUNDING:
        return [0.0] * (LAGS + 1)
    return [sum(map(mul, announcing, scores[lag:])) / power for lag in range(1, LAGS + 2)]


def _weighted(lags: Sequence[float]) -> tuple[float, float]:
    """The weighted sums of the first lags, and of those one night further."""
    near = math.fsum(weight * lag for weight, lag in zip(LAG_WEIGHTS, lags, strict=False))
    far = math.fsum(weight * lag for weight, lag in zip(LAG_WEIGHTS, lags[1:], strict=True))
    return near, far


def median_of(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def noise_width(values: Sequence[float]) -> float:
    """The standard deviation of normal noise with the same 5 % and 95 % points: the second mode of
    bimodal noise counts, rare spikes do not.
    """
    ordered, outside = sorted(values), len(values) // 20
    return (ordered[-1 - outside] - ordered[outside]) / SIGMAS_BETWEEN_POINTS


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


@lru_cache(maxsize=512)
def _score_table(count: int) -> tuple[float, ...]:
    normal = NormalDist()
    return tuple(normal.inv_cdf((rank + 0.625) / (count + 0.25)) for rank in range(count))
