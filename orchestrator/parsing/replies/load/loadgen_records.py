"""What LoadGen's process says, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.sharing.load_protocol import Flushed, GeneratorGone, Issued, LoadEnded
from orchestrator.parsing.replies.record_lines import as_int

MAX_ID = 2**64 - 1


@dataclass(frozen=True, slots=True)
class SettingsRead:
    """LoadGen's settings, as read back after they were set."""

    values: Mapping[str, object]


LoadGenRecord = SettingsRead | Issued | Flushed | LoadEnded | GeneratorGone


def parse_loadgen_record(line: bytes) -> LoadGenRecord:
    """What a line says; one that says nothing means that the process cannot be trusted."""
    try:
        record = json.loads(line)
        match record["type"]:
            case "settings":
                return SettingsRead(dict(record["values"]))
            case "issue":
                return Issued(tuple(map(_query, record["queries"])))
            case "flush":
                return Flushed()
            case "end":
                return LoadEnded()
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return GeneratorGone(f"it wrote {line[:80]!r}")


def _query(pair: list[object]) -> tuple[int, int]:
    """Raises ``ValueError``, ``TypeError``."""
    id, index = (as_int(number, 0, MAX_ID) for number in pair)
    if id is None or index is None:
        raise ValueError("not an id and an index")
    return id, index
