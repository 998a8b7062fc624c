"""The highest rate that meets the objectives: which rate to try next, from what was tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Rates that miss are halved, those that meet doubled, until one of each is known.
STEP = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A rate, and whether the objectives were met at it."""

    rate: float
    met: bool


def next_rate(
    trials: Sequence[Trial], *, first: float, precision: float, most_trials: int
) -> float | None:
    """What to try after these trials; None when the answer is known to ``precision`` (a part of
    it), or ``most_trials`` were made.

    Between a rate that meets and a higher one that misses it takes their geometric mean. A rate
    that missed counts, even if a higher one met: noise must not raise the answer.
    """
    if not trials:
        return first
    if len(trials) >= most_trials:
        return None
    best, bound = best_rate(trials), _lowest_miss(trials)
    if best is None:
        return min(trial.rate for trial in trials) / STEP
    if bound is None:
        return max(trial.rate for trial in trials) * STEP
    return None if bound <= best * (1 + precision) else math.sqrt(best * bound)


def best_rate(trials: Sequence[Trial]) -> float | None:
    """The highest rate that met the objectives, below every one that missed them."""
    bound = _lowest_miss(trials) or math.inf
    return max((t.rate for t in trials if t.met and t.rate < bound), default=None)


def _lowest_miss(trials: Sequence[Trial]) -> float | None:
    return min((trial.rate for trial in trials if not trial.met), default=None)
