"""Figures for people: as many digits as somebody reads, in units that somebody says. Pure.

JSON, journals and histories keep raw values in base units; only what people read passes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

_HOUR_S = 3600.0
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SHORT = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_BLOCKS = "▁▂▃▄▅▆▇█"
_FRACTIONS = frozenset({"fraction", "ratio of 1"})


def sum_of_all(parts: Sequence[float | None]) -> float | None:
    """None where one of them is not known, and of nothing."""
    known = [part for part in parts if part is not None]
    return sum(known) if known and len(known) == len(parts) else None


def format_number(value: float) -> str:
    """Four digits that count, thousands apart: ``60``, ``0.3125``, ``12,440``, ``1.2e-05``."""
    if not abs(value) < 1e15:  # also what is not a number
        return f"{value:.4g}"
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def format_figure(value: float, unit: str) -> str:
    """``value`` with its unit, scaled: ``506 MiB``, ``22 ms``, ``96.4 %``, ``12,440 tok/s``."""
    if unit in {"bytes", "B"}:
        return _scaled_bytes(value)
    if unit == "s":
        return format_duration(value)
    if unit in _FRACTIONS and abs(value) <= 10:
        return f"{100 * value:.1f} %" if abs(value) >= 0.01 or not value else f"{100 * value:.3g} %"
    return f"{format_number(value)} {unit}".rstrip()


def format_duration(value: float) -> str:
    """Seconds: ``22 ms``, ``12.3 s``, ``4 min 05 s``, ``2 h 03 min``."""
    if not abs(value) < 100 * _HOUR_S:
        return (
            f"{format_number(round(value / _HOUR_S) if abs(value) < 1e15 else value / _HOUR_S)} h"
        )
    whole = round(value)
    if whole >= _HOUR_S:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 100:
        return f"{whole // 60} min {whole % 60:02d} s"
    if value == 0 or abs(value) >= 10:
        return f"{value:.1f} s".replace(".0 s", " s")
    scale, unit = next((pair for pair in _SHORT if abs(value) >= pair[0]), _SHORT[-1])
    return f"{value / scale:.3g} {unit}"


def format_moment(seconds: float) -> str:
    """Seconds since the epoch: ``2026-11-30 19:00 UTC``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _scaled_bytes(value: float) -> str:
    power = 0
    while abs(value) >= 1000 and power < len(_BINARY) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.0f} B" if not power else f"{value:.3g} {_BINARY[power]}"


def format_bounds(low: float | None, high: float | None, unit: str) -> str:
    """A gate in words: ``at least 80.0 %``, ``at most 0.5``, both with ``and``; empty without."""
    parts: Sequence[tuple[str, float | None]] = (("at least", low), ("at most", high))
    return " and ".join(f"{word} {_format_bound(at, unit)}" for word, at in parts if at is not None)


def _format_bound(value: float, unit: str) -> str:
    """The unit stands beside the figure already, unless scaling would make two of it."""
    scaled = unit in {"bytes", "B", "s"} or unit in _FRACTIONS
    return format_figure(value, unit) if scaled else format_number(value)


def sparkline(values: Sequence[float]) -> str:
    """One block a value, between the smallest and the largest; equal values stand in the middle."""
    if not values:
        return ""
    low, high = min(values), max(values)
    if high == low:
        return _BLOCKS[3] * len(values)
    scale = max(abs(low), abs(high))  # the difference of huge values would not be finite
    top, span = len(_BLOCKS) - 1, (high / scale - low / scale) or 1.0
    return "".join(_BLOCKS[round(top * (v / scale - low / scale) / span)] for v in values)
