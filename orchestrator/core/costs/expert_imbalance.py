"""How unequal the work of experts is: loads are drawn, since the slowest rank sets the time.

The core draws nothing at random: a draw is a hash of a seed and its number (SplitMix64, Steele, Lea
and Flood 2014, doi 10.1145/2714064.2660195), so that equal inputs give equal loads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

MASK = (1 << 64) - 1
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
LARGE_MEAN = 30.0  # from here on a Poisson number is drawn as a normal one


class Routing(NamedTuple):
    """How tokens choose experts. ``skew``: expert i of the ranking is chosen in proportion to
    i ** -skew, 0 = all alike. ``draws``: over how many drawn layers the mean is taken.
    """

    experts: int
    active: int
    skew: float = 0.0
    seed: int = 0
    draws: int = 16


class Imbalance(NamedTuple):
    """Of the most loaded rank: its tokens by the mean of all, and how many experts it reads."""

    load: float
    experts: float


def draw(seed: int, number: int) -> float:
    """A number in (0, 1) for each pair."""
    z = (seed * FIRST + (number + 1) * GOLDEN) & MASK
    z = ((z ^ (z >> 30)) * FIRST) & MASK
    z = ((z ^ (z >> 27)) * SECOND) & MASK
    return ((z ^ (z >> 31)) + 0.5) / 2.0**64


@lru_cache(maxsize=4096)
def imbalance(routing: Routing, tokens: int, ranks: int) -> Imbalance:
    """Of ``tokens`` of all ranks; experts are dealt out over ``ranks`` as evenly as possible."""
    if not routing.experts or tokens <= 0:
        return Imbalance(1.0, 0.0)
    found = [_drawn(routing, tokens, ranks, number) for number in range(routing.draws)]
    from statistics import fmean  # which takes longer to import than a prediction

    return Imbalance(fmean(each.load for each in found), fmean(each.experts for each in found))


def _drawn(routing: Routing, tokens: int, ranks: int, number: int) -> Imbalance:
    loads = list(expert_loads(routing, tokens, number))
    shares = [loads[rank::ranks] for rank in range(ranks)]
    totals = [sum(share) for share in shares]
    read = [sum(load > 0 for load in share) for share in shares]
    mean = sum(totals) / ranks
    return Imbalance(max(totals) / mean if mean else 1.0, float(max(read)))


def expert_loads(routing: Routing, tokens: int, number: int = 0) -> Iterator[int]:
    """How many of ``tokens`` each expert gets in drawn layer ``number``, at most all of them.

    Independent Poisson numbers, which is what many tokens with few choices each come to. Experts
    are ranked anew in each layer.
    """
    weights = [(place + 1.0) ** -routing.skew for place in range(routing.experts)]
    total = sum(weights)
    seed = routing.seed * 1_000_003 + number
    order = sorted(range(routing.experts), key=lambda e: draw(seed, routing.experts + e))
    for expert, place in enumerate(order):
        mean = tokens * routing.active * weights[place] / total
        yield min(tokens, _poisson(mean, draw(seed, expert)))


def _poisson(mean: float, chance: float) -> int:
    """The number whose cumulative probability first reaches ``chance``."""
    if mean > LARGE_MEAN:
        from statistics import NormalDist

        return max(0, round(NormalDist(mean, math.sqrt(mean)).inv_cdf(chance)))
    number, part = 0, math.exp(-mean)
    left = chance - part
    while left > 0 and number < 10 * LARGE_MEAN:
        number += 1
        part *= mean / number
        left -= part
    return number


def expected_experts(experts: int, active: int, tokens: float) -> float:
    """Distinct experts that ``tokens`` use if all are equally likely: E (1 - (1 - k / E) ** b)."""
    return float(experts * (1.0 - (1.0 - active / experts) ** tokens))


def shared_out(experts: int, ranks: int) -> Sequence[int]:
    """How many experts each rank holds: uneven where they cannot be divided."""
    return [len(range(rank, experts, ranks)) for rank in range(ranks)]
