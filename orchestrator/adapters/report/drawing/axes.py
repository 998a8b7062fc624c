"""Axes of drawings: from values to places, with round ticks. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core.base.figures import format_number

_HUGEST, _TINIEST, _FLAT = 1e300, 1e-280, 1e-12


@dataclass(frozen=True, slots=True)
class AxisTick:
    """A grid line at ``at`` with its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class LinearAxis:
    """Maps ``low..high`` to ``start..end``."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> LinearAxis:
        low, high = _bounded_value(min(values)), _bounded_value(max(values))
        largest = max(abs(low), abs(high))
        if high - low <= largest * _FLAT or largest < _TINIEST:
            # Constant, as far as labels of six digits can tell.
            margin = largest * 0.05 if largest >= _TINIEST else 1.0
            low, high = low - margin, high + margin
        return cls(low, high, start, end)

    def place(self, value: float) -> float:
        share = (_bounded_value(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int) -> Iterator[AxisTick]:
        """Round numbers inside the range, at most ``2 * about + 2``."""
        step = _round_step((self.high - self.low) / about)
        first = math.ceil(self.low / step)
        for index in range(first, min(math.floor(self.high / step), first + 2 * about + 1) + 1):
            value = index * step
            yield AxisTick(round(self.place(value), 1), _tick_label(value))


def _tick_label(value: float) -> str:
    """Thousands apart; below them six digits, for ticks that are close together."""
    return format_number(value) if abs(value) >= 1000 else f"{value:.6g}"


def _bounded_value(value: float) -> float:
    """Values so huge that their difference would not be finite are drawn at the edge."""
    return max(-_HUGEST, min(_HUGEST, float(value)))


def _round_step(raw: float) -> float:
    """1, 2 or 5 times a power of ten, not smaller than ``raw``."""
    power: float = 10.0 ** math.floor(math.log10(raw))
    return next((m * power for m in (1.0, 2.0, 5.0) if m * power >= raw), 10.0 * power)


@dataclass(frozen=True, slots=True)
class LogAxis:
    """Maps ``low..high``, both above 0, to ``start..end`` by their logarithms."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> LogAxis:
        low, high = (min(_HUGEST, max(_TINIEST, edge(values))) for edge in (min, max))
        if math.log(high) - math.log(low) <= _FLAT:
            low, high = low / 2, high * 2
        return cls(low, high, start, end)

    def place(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        low = math.log(self.low)
        share = (math.log(inside) - low) / (math.log(self.high) - low)
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int) -> Iterator[AxisTick]:
        """Powers of ten."""
        yield from self._powers(10, about, _tick_label)

    def binary_ticks(self, about: int) -> Iterator[AxisTick]:
        """Powers of two; the labels are plain numbers."""
        yield from self._powers(2, about, "{:.0f}".format)

    def _powers(self, base: int, about: int, label: Callable[[float], str]) -> Iterator[AxisTick]:
        first = math.ceil(math.log(self.low, base) - 1e-9)
        last = math.floor(math.log(self.high, base) + 1e-9)
        stride = max(1, math.ceil((last - first + 1) / about))
        for power in range(first, last + 1, stride):
            value = float(base) ** power
            yield AxisTick(round(self.place(value), 1), label(value))


def axis_over(
    values: Sequence[float], start: float, end: float, *, log: bool
) -> LinearAxis | LogAxis:
    """The axis that holds all values."""
    return LogAxis.over(values, start, end) if log else LinearAxis.over(values, start, end)
