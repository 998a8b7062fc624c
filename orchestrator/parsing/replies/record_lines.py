"""Lines of JSON that ranks write: what every reader of them checks first. Nothing is trusted.

What is wrong is described, never raised: ``a line that is not JSON`` goes on a sentence that
says whose it is.
"""

from __future__ import annotations

import json
import math
from typing import Any


def parse_object(line: bytes, most: int) -> dict[str, Any] | str:
    """The object in ``line``, which has at most ``most`` bytes; or what is wrong with it."""
    if len(line) > most:
        return f"a line of {len(line)} bytes; at most {most}"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return "a line that is not JSON"
    return record if isinstance(record, dict) else "something that is not an object"


def unknown_type(told: object) -> str:
    """What is wrong with a record whose ``type`` no reader knows."""
    return f"a record of unknown type {str(told)[:40]!r}"


def as_float(value: object) -> float | None:
    """``value`` as a number, or None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_int(value: object, least: int, most: int) -> int | None:
    """``value`` as a whole number from ``least`` to ``most``, or None if it is none."""
    return value if type(value) is int and least <= value <= most else None
