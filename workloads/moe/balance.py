"""How evenly tokens are spread over experts. Pure; standard library only.

All figures are of one layer: the experts of two layers are never added up, since a layer that is
skewed one way and one that is skewed the other way would look even together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Of one layer, from the number of tokens that each expert got.

    - ``utilisation``: part of the experts that got any.
    - ``max_over_mean``: the busiest expert by the mean; the time of a layer goes with it. 1 = even.
    - ``gini``: half the mean difference of all pairs of experts, by the mean (Gini 1912); 0 = even,
      (n - 1) / n = one expert gets everything.
    - ``cv``: standard deviation of the experts (of all of them, so divided by n) by the mean.
    - ``dead``: experts that got none.
    - ``effective_experts``: the exponential of the entropy of the shares, in nats: as many experts
      as would be used evenly with the same entropy (Hill's number of order 1, 1973).
    """

    utilisation: float
    max_over_mean: float
    gini: float
    cv: float
    dead: int
    effective_experts: float


def balance(counts: Sequence[int]) -> Balance:
    """Raises ``ValueError`` for no experts, a negative count, or no token at all."""
    total = sum(counts)
    if not counts or min(counts) < 0 or not total:
        raise ValueError("expected a count for each expert, none negative, and some token")
    mean = total / len(counts)
    used = sum(1 for count in counts if count)
    return Balance(
        utilisation=used / len(counts),
        max_over_mean=max(counts) / mean,
        gini=_gini(counts, total),
        cv=math.sqrt(math.fsum((count - mean) ** 2 for count in counts) / len(counts)) / mean,
        dead=len(counts) - used,
        effective_experts=math.exp(
            -math.fsum(c / total * math.log(c / total) for c in counts if c)
        ),
    )


def _gini(counts: Sequence[int], total: int) -> float:
    """By ranks, in n log n: the sum of (2 i - n - 1) x_i over values in rising order, by n times
    the total. In whole numbers up to the division.
    """
    size = len(counts)
    weighted = sum((2 * i - size - 1) * x for i, x in enumerate(sorted(counts), start=1))
    return weighted / (size * total)
