"""What ranks wrote of their profiles and of their collectives. Nothing is trusted."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.core.captures.nvlink import Collectives
from orchestrator.core.captures.profile import Event, RankProfile
from orchestrator.parsing.captures.sampled import MAX_TEXT, BadCapture
from orchestrator.parsing.replies.record_lines import as_float, as_int
from orchestrator.parsing.replies.records import printable_text

MAX_BYTES = 64 * 1024 * 1024
MAX_EVENTS = 1_000_000
MAX_NAMES = 100_000
MAX_NAME = 400
MAX_US = 1e12
MAX_ROWS = 1000
LARGEST = 1 << 60
KINDS = ("kernel", "copy", "operator")
FAULTS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def parse_profile(data: bytes) -> RankProfile:
    """Raises :class:`BadCapture`."""
    try:
        document = _document(data)
        names = [printable_text(str(name)[:MAX_NAME]) for name in document.get("names", [])]
        kinds = document.get("kinds", [])
        if len(names) > MAX_NAMES or len(kinds) != len(names) or not set(kinds) <= set(KINDS):
            raise ValueError("names and kinds do not fit")
        return RankProfile(
            rank=_whole(document["rank"], LARGEST),
            reason=printable_text(str(document["reason"])[:MAX_TEXT]),
            tool=printable_text(str(document["tool"])[:MAX_TEXT]),
            device=printable_text(str(document.get("device", ""))[:MAX_TEXT]),
            seconds=_seconds(document.get("seconds", 0.0)),
            steps=_whole(document.get("steps", 0), LARGEST),
            asked=document.get("asked") is True,
            names=names,
            kinds=kinds,
            events=_events(document.get("events", []), len(names)),
            dropped=_whole(document.get("dropped", 0), LARGEST),
        )
    except FAULTS as error:
        raise BadCapture(str(error)[:MAX_TEXT]) from error


def _document(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes; at most {MAX_BYTES}")
    document = json.loads(data)
    if not isinstance(document, dict):
        raise TypeError("not an object")
    return document


def _events(given: Any, names: int) -> list[Event]:
    if len(given) > MAX_EVENTS:
        raise ValueError(f"more than {MAX_EVENTS} events")
    return [
        (_time(start), _time(took), _whole(lane, LARGEST), _whole(name, names - 1))
        for start, took, lane, name in given
    ]


def _time(value: Any) -> float:
    number = as_float(value)
    if number is None or not 0 <= number <= MAX_US:
        raise ValueError(f"not a time: {str(value)[:80]!r}")
    return number


def _seconds(value: Any) -> float:
    number = as_float(value)
    if number is None or number < 0:
        raise ValueError(f"not a duration: {str(value)[:80]!r}")
    return number


def _whole(value: Any, most: int) -> int:
    number = as_int(value, 0, most)
    if number is None:
        raise ValueError(f"not a whole number up to {most}: {str(value)[:80]!r}")
    return number


def parse_collectives(data: bytes) -> list[Collectives]:
    """Raises :class:`BadCapture`."""
    try:
        rows = json.loads(data) if len(data) <= MAX_BYTES else None
        if not isinstance(rows, list) or len(rows) > MAX_ROWS:
            raise TypeError(f"not a list of at most {MAX_ROWS} collectives")
        return [
            Collectives(
                op=printable_text(str(row["op"])[:40]),
                bytes=_whole(row["bytes"], LARGEST),
                ranks=_whole(row["ranks"], 1 << 24),
                count=_whole(row["count"], LARGEST),
            )
            for row in rows
        ]
    except FAULTS as error:
        raise BadCapture(str(error)[:MAX_TEXT]) from error
