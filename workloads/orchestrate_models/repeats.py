"""Repeated measurements: the middle one, and how far the others are from it. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Two-sided 95 % of a normal distribution.
Z = 1.959964


@dataclass(frozen=True, kw_only=True)
class Spread:
    """``relative``: standard deviation by mean; 0 of a single value."""

    count: int
    low: float
    median: float
    high: float
    relative: float


def spread(values: Sequence[float]) -> Spread:
    """Raises ``ValueError`` for no values."""
    if not values:
        raise ValueError("the spread of nothing")
    mean = statistics.fmean(values)
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(
        count=len(values),
        low=min(values),
        median=statistics.median(values),
        high=max(values),
        relative=deviation / mean if mean else math.inf,
    )
