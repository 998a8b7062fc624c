"""A figure as a sum of physical terms, each weighed by a coefficient that is known only so well.

    y = cap(slower(D + slower(R, C), H) + A)        slower(a, b) = (a ** p + b ** p) ** (1 / p)

R, C: reading and arithmetic of the same products, of which the slower one counts (roofline); D: all
else on the device; H: terms of the host, which works ahead of it; A: terms that follow all of it.
An amount is what physics alone would give, such as bytes by the data sheet's rate; its coefficient
says how many times as long it takes. Coefficients are positive: they are known by their logarithm,
as a normal distribution around a mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from orchestrator.core.base.wire_names import wire

# A normal number lies within so many standard deviations in 90 % of cases. A constant, since the
# module statistics takes longer to import than a prediction.
NORMAL_REACH = 1.6448536269514722
OVERSHOOT = 1.03  # of a cap that is regulated
SHARPNESS = 6.0  # p: at D = H the slower one is 12 % longer than alone


class WorkPlace(StrEnum):
    """Where a term's work is done."""

    DEVICE = "device"
    READ = "read"
    COMPUTED = "computed"
    HOST = "host"
    AFTER = "after"


class Term(NamedTuple):
    """One part of a figure. ``amount`` is in the figure's unit."""

    name: str
    amount: float
    part: WorkPlace = WorkPlace.DEVICE


@wire("CostFamily")
class Family(NamedTuple):
    """The coefficients of one figure, in the order of ``names``. ``logs``: means of their
    logarithms; ``covariance`` of these. ``spread``: standard deviation of the logarithm of measured
    by predicted, from ``points`` measured ones; with no points it is what is assumed.
    """

    names: tuple[str, ...]
    logs: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    spread: float
    points: int = 0

    def coefficient(self, name: str) -> float:
        """Its most likely value. Raises ``ValueError`` for a name that the family has not."""
        return math.exp(self.logs[self.names.index(name)])


class Interval(NamedTuple):
    """The most likely value of a figure, and bounds that hold it in 90 % of runs."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """Of a figure that is ``factor`` times this one."""
        return Interval(value=factor * self.value, low=factor * self.low, high=factor * self.high)

    def inverted(self, numerator: float) -> Interval:
        """Of ``numerator`` by this figure: a rate from a time."""
        return Interval(
            value=numerator / self.value, low=numerator / self.high, high=numerator / self.low
        )

    @property
    def log_sd(self) -> float:
        """Standard deviation of the figure's logarithm."""
        return math.log(self.high / self.low) / (2 * quantile(0))


class Weighed(NamedTuple):
    """A figure's value, and by how much its logarithm moves with that of each coefficient."""

    value: float
    slopes: tuple[float, ...]


def quantile(degrees: int) -> float:
    """Of Student's t for two-sided intervals of 90 %; 0 degrees = the normal distribution.

    Expansion of Fisher and Cornish (1960, doi 10.1080/00401706.1960.10489895); within 1 % from 4
    degrees on.
    """
    z = NORMAL_REACH
    if degrees <= 0:
        return z
    first = (z**3 + z) / (4 * degrees)
    return z + first + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)


def weigh(
    names: Sequence[str], logs: Sequence[float], terms: Sequence[Term], cap: float | None = None
) -> Weighed:
    """The figure that ``terms`` make with these coefficients, and its slopes."""
    coefficients = _coefficients(tuple(names), tuple(logs))
    sums = dict.fromkeys(WorkPlace, 0.0)
    weighed = []
    for term in terms:
        place, coefficient = coefficients[term.name]
        amount = term.amount * coefficient
        sums[term.part] += amount
        weighed.append((place, term.part, amount))
    value, bends = _combined(sums)
    if value <= 0:
        raise ValueError("a figure without any amount")
    slopes = [0.0] * len(names)
    for place, part, amount in weighed:
        slopes[place] += bends[part] * amount / value
    return _capped(value, slopes, cap)


def _combined(sums: Mapping[WorkPlace, float]) -> tuple[float, Mapping[WorkPlace, float]]:
    """The figure, and by how much it moves with each sum."""
    products = _slower(sums[WorkPlace.READ], sums[WorkPlace.COMPUTED])
    device = sums[WorkPlace.DEVICE] + products
    both = _slower(device, sums[WorkPlace.HOST])
    on_device = _bend(device, both)
    bends = {
        WorkPlace.DEVICE: on_device,
        WorkPlace.READ: on_device * _bend(sums[WorkPlace.READ], products),
        WorkPlace.COMPUTED: on_device * _bend(sums[WorkPlace.COMPUTED], products),
        WorkPlace.HOST: _bend(sums[WorkPlace.HOST], both),
        WorkPlace.AFTER: 1.0,
    }
    return both + sums[WorkPlace.AFTER], bends


def _bend(part: float, slower: float) -> float:
    """By how much the slower of two moves with one of them."""
    return float((part / slower) ** (SHARPNESS - 1)) if slower else 0.0


@lru_cache(maxsize=256)
def _coefficients(
    names: tuple[str, ...], logs: tuple[float, ...]
) -> Mapping[str, tuple[int, float]]:
    """Name -> its place and value."""
    return {name: (place, math.exp(logs[place])) for place, name in enumerate(names)}


def _slower(device: float, host: float) -> float:
    """A smooth maximum, which has slopes everywhere."""
    most = max(device, host)
    if not most:
        return 0.0
    powers = (device / most) ** SHARPNESS + (host / most) ** SHARPNESS
    return float(most * powers ** (1 / SHARPNESS))


def _capped(value: float, slopes: list[float], cap: float | None) -> Weighed:
    """A smooth minimum of the value and its cap, such as a power limit."""
    if cap is None:
        return Weighed(value, tuple(slopes))
    ratio = (value / cap) ** SHARPNESS
    lowered = value / (1 + ratio) ** (1 / SHARPNESS)
    return Weighed(float(lowered), tuple(slope / (1 + ratio) for slope in slopes))


def estimate(family: Family, terms: Sequence[Term], cap: float | None = None) -> Interval:
    """The figure with its interval: spread of the measured points and doubt about coefficients."""
    found = weigh(family.names, family.logs, terms, cap)
    variance = family.spread**2 + variance_of(found.slopes, family.covariance)
    reach = math.exp(quantile(family.points) * math.sqrt(variance))
    high = found.value * reach
    if cap is not None:  # a power limit is held to a few per cent
        high = max(found.value, min(high, OVERSHOOT * cap))
    return Interval(value=found.value, low=found.value / reach, high=high)


def variance_of(slopes: Sequence[float], covariance: Sequence[Sequence[float]]) -> float:
    """Of the logarithm of a figure with these slopes."""
    return sum(
        slope * sum(part * other for part, other in zip(row, slopes, strict=True))
        for slope, row in zip(slopes, covariance, strict=True)
        if slope
    )


def product(one: Interval, other: Interval) -> Interval:
    """Of two figures whose errors are independent."""
    return _around(one.value * other.value, math.hypot(one.log_sd, other.log_sd))


def joined(parts: Sequence[Interval]) -> Interval:
    """The sum of figures whose errors are independent."""
    total = sum(part.value for part in parts)
    variance = sum((part.value / total * part.log_sd) ** 2 for part in parts)
    return _around(total, math.sqrt(variance))


def depending(other: Interval, figure: Callable[[float], Interval]) -> Interval:
    """``figure`` of another one that is itself known within bounds: both doubts, as independent."""
    found = figure(other.value)
    ends = [found.value, *(figure(end).value for end in (other.low, other.high))]
    below = math.hypot(math.log(found.value / found.low), math.log(found.value / min(ends)))
    above = math.hypot(math.log(found.high / found.value), math.log(max(ends) / found.value))
    return Interval(
        value=found.value,
        low=found.value / math.exp(below),
        high=found.value * math.exp(above),
    )


def _around(value: float, log_sd: float) -> Interval:
    """Of a figure whose logarithm has this standard deviation."""
    reach = math.exp(quantile(0) * log_sd)
    return Interval(value=value, low=value / reach, high=value * reach)
