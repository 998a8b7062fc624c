"""Frames as the coordinator sees them: strict about what a node may send."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

MAX_FRAME_BYTES = 1024 * 1024
MAX_DEPTH = 24


class BadFrame(ValueError):
    """What arrived is not a frame of the protocol."""


def encode_frame(frame: Mapping[str, Any]) -> bytes:
    """One line. Raises ``ValueError`` if it is longer than the agent accepts."""
    line = _ENCODER.encode(frame).encode() + b"\n"
    if len(line) > MAX_FRAME_BYTES:
        raise ValueError(f"a request of {len(line)} bytes; {MAX_FRAME_BYTES} fit into a frame")
    return line


def decode_frame(line: bytes) -> dict[str, Any]:
    """The object in ``line``. Raises :class:`BadFrame`."""
    try:
        frame = _DECODER.decode(line.decode())
    except (ValueError, RecursionError) as error:
        raise BadFrame("not JSON") from error
    if not isinstance(frame, dict):
        raise BadFrame("not an object")
    # As deep as it has brackets at most, of which most frames have few.
    brackets = line.count(b"{") + line.count(b"[")
    if brackets > MAX_DEPTH and _deeper_than(frame, MAX_DEPTH):
        raise BadFrame(f"nested deeper than {MAX_DEPTH}")
    return frame


def _finite_float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_constant(text)


def _refuse_constant(text: str) -> NoReturn:
    raise BadFrame(f"not a finite number: {text}")


def _deeper_than(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            item
            for container in level
            if isinstance(container, dict | list)
            for item in (container.values() if isinstance(container, dict) else container)
        ]
        if not level:
            return False
    return True


# Made once: `json.dumps` and `json.loads` make one for each call that has options.
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite_float)
