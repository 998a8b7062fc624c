"""Percentiles, MLPerf's certificate for them, and gaps between tokens in bounded memory."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

# MLPerf inference rules, "Early Stopping": confidence 0.99, tolerance 0.
CONFIDENCE = 0.99
# Beyond so many standard deviations below the mean a binomial distribution holds less than 1e-20.
_FAR_BELOW = 10.0
# Buckets of the histogram grow by this ratio: a percentile is off by half of it at most.
GROWTH = 1.002
SHORTEST_S = 1e-7


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of ascending values, interpolated between neighbours as NumPy does by default.

    Raises ``ValueError`` for none.
    """
    if not ordered:
        raise ValueError("a percentile of nothing")
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def certified(ordered: Sequence[float], percent: float) -> float | None:
    """MLPerf's early-stopping estimate of a percentile of ascending values: with a confidence of
    99 %, the true one is not above it. None when there are too few values to say so.

    With t the largest number of values over the limit that the binomial bound allows, it is
    ``ordered[n - t]``. Valid for values that do not depend on each other, one percentile at a time.
    """
    over = _most_over(len(ordered), percent)
    return ordered[len(ordered) - over] if over else None


def least_samples(percent: float) -> int:
    """How many values a certificate for this percentile needs."""
    low, high = 1, 2
    while not _most_over(high, percent):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _most_over(middle, percent) else (middle, high)
    return high


def _most_over(count: int, percent: float) -> int:
    """The largest t >= 1 with P(at most t of count are over) <= 1 - confidence; 0 = none.

    Sums the binomial distribution upwards from where it begins to matter.
    """
    over = 1 - percent / 100
    if count < 1:
        return 0
    deviation = math.sqrt(count * over * (1 - over))
    term = max(0, math.floor(count * over - _FAR_BELOW * deviation))
    probability = math.exp(_log_binomial(count, term, over))
    below = probability
    while below <= 1 - CONFIDENCE:
        probability *= (count - term) / (term + 1) * over / (1 - over)
        term += 1
        below += probability
    return max(0, term - 1)


def _log_binomial(count: int, successes: int, probability: float) -> float:
    """The logarithm of the probability of exactly so many successes."""
    ways = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    others = count - successes
    return ways + successes * math.log(probability) + others * math.log1p(-probability)


class Histogram:
    """Many durations in a few thousand counters: percentiles within 0.1 %, sums exact.

    For gaps between tokens, of which a long run has hundreds of millions.
    """

    __slots__ = ("_counts", "_scale", "count", "total")

    def __init__(self) -> None:
        self._counts = array("Q")
        self._scale = 1 / math.log(GROWTH)
        self.count = 0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """One duration. What is below 0.1 us counts as that."""
        bucket = max(0, round(math.log(max(seconds, SHORTEST_S) / SHORTEST_S) * self._scale))
        if bucket >= len(self._counts):
            self._counts.extend([0] * (bucket + 1 - len(self._counts)))
        self._counts[bucket] += 1
        self.count += 1
        self.total += seconds

    @property
    def mean(self) -> float:
        """Raises ``ZeroDivisionError`` for no durations."""
        return self.total / self.count

    def percentile(self, percent: float) -> float:
        """The nearest rank's bucket. Raises ``ValueError`` for no durations."""
        if not self.count:
            raise ValueError("a percentile of nothing")
        rank = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return SHORTEST_S * GROWTH**bucket
        raise AssertionError("counters that do not sum up")
