"""Statistics that one bad value does not move: medians, percentiles, and who is out of line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# A median absolute deviation times this is a standard deviation if the noise is normal.
SIGMA = 1.4826
OUTLIER_SIGMAS = 3.5
# Below three values nobody can say which of them is the odd one.
FEWEST_FOR_OUTLIERS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What a set of values looks like; ``mad`` is the median absolute deviation."""

    count: int
    low: float
    median: float
    high: float
    mad: float


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones. Raises ``ValueError`` for none."""
    if not values:
        raise ValueError("the median of nothing")
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return ordered[middle - 1] + (ordered[middle] - ordered[middle - 1]) / 2


def spread(values: Sequence[float]) -> Spread:
    """Raises ``ValueError`` for no values."""
    middle = median(values)
    return Spread(
        count=len(values),
        low=min(values),
        median=middle,
        high=max(values),
        mad=median([abs(value - middle) for value in values]),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def outliers(values: Mapping[str, float], *, floor: float) -> dict[str, float]:
    """Who deviates from the median, by how much of it.

    Both must hold: beyond 3.5 robust standard deviations, and beyond ``floor`` as a part of the
    median, so that neither the noise of a few values nor a tiny difference makes an outlier.
    """
    if len(values) < FEWEST_FOR_OUTLIERS:
        return {}
    whole = spread(list(values.values()))
    if not whole.median:
        return {}
    return {
        name: (value - whole.median) / whole.median
        for name, value in values.items()
        if abs(value - whole.median) > OUTLIER_SIGMAS * SIGMA * whole.mad
        and abs(value - whole.median) > floor * abs(whole.median)
    }
