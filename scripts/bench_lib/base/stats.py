"""Figures from samples: medians, spreads, ratios, and whether a target is met.  Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

MIN_SAMPLES = 5

T = TypeVar("T")


class Quantity(Enum):
    """What is measured, in seconds."""

    WALL = "wall"
    CPU = "client CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One repeat, in seconds."""

    wall_s: float
    cpu_s: float
    hosts_cpu_s: float | None = None  # None: this kernel does not count it

    def of(self, quantity: Quantity) -> float:
        return self.wall_s if quantity is Quantity.WALL else self.cpu_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Of at least one sample; seconds."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An upper limit for our median in one case: seconds, or a multiple of `against`'s median.

    `of`: another contender of ours than the one that the scenario judges.
    """

    case: str
    quantity: Quantity
    limit: float
    against: str | None = None
    of: str | None = None

    @property
    def unit(self) -> str:
        return "x" if self.against else "s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a target turned out; `low` and `high` are its value in the best and worst round."""

    target: Target
    value: float
    low: float
    high: float
    met: bool
    enough: bool

    @property
    def word(self) -> str:
        if not self.enough:
            return "too few repeats"
        return "met" if self.met else "MISSED"


# Case -> contender -> one sample for each round.
Samples = Mapping[str, Mapping[str, Sequence[Sample]]]


def summarize(values: Sequence[float]) -> Summary:
    """Raises ValueError when there is no value."""
    if not values:
        raise ValueError("no samples")
    median = statistics.median(values)
    return Summary(median=median, low=min(values), high=max(values), count=len(values))


def values(samples: Sequence[Sample], quantity: Quantity) -> list[float]:
    return [sample.of(quantity) for sample in samples]


def judge(target: Target, samples: Samples, ours: str) -> Verdict:
    """Compare medians; the spread is that of the rounds, in each of which all were measured.

    Raises KeyError when the case or a contender was not measured: missing is never met.
    """
    own = values(samples[target.case][target.of or ours], target.quantity)
    other = [1.0] * len(own)
    if target.against:
        other = values(samples[target.case][target.against], target.quantity)
    value = summarize(own).median / summarize(other).median
    rounds = [a / b for a, b in zip(own, other, strict=True)]
    return Verdict(
        target=target,
        value=value,
        low=min(rounds),
        high=max(rounds),
        met=value <= target.limit,
        enough=len(own) >= MIN_SAMPLES,
    )


def rotated(items: Sequence[T], by: int) -> list[T]:
    """The order of a later round: everybody goes first equally often."""
    start = by % len(items) if items else 0
    return [*items[start:], *items[:start]]
