"""What the sampler of a node wrote of its GPUs: an index in JSON, and CSV. Nothing is trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from orchestrator.core.captures.recorded import CapturedSamples, Key, RecordedIndex, Row
from orchestrator.parsing.replies.records import InvalidReply, read_record

MAX_INDEX_BYTES = 4 * 1024 * 1024
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_ROWS = 4_000_000
MAX_GPUS = 1024  # and links, which are fewer
MAX_NUMBER = 1e18
MAX_TEXT = 300
COLUMNS: Mapping[str, tuple[int, tuple[str, ...]]] = {  # kind -> (how many are keys, columns)
    "power": (1, ("gpu", "instant_mw", "average_mw", "energy_mj")),
    "clocks": (1, ("gpu", "sm_mhz", "memory_mhz", "throttle", "temperature_c")),
    "memory": (1, ("gpu", "used_bytes")),
    "nvlink": (2, ("gpu", "link", "sent_kib", "received_kib")),
}


class BadCapture(ValueError):
    """What is wrong with a file, and where in it."""


def parse_index(data: bytes) -> RecordedIndex:
    """Raises :class:`BadCapture`."""
    if len(data) > MAX_INDEX_BYTES:
        raise BadCapture(f"{len(data)} bytes; at most {MAX_INDEX_BYTES}")
    try:
        return read_record(RecordedIndex, json.loads(data), "index")
    except (InvalidReply, ValueError, RecursionError) as error:
        raise BadCapture(str(error)[:MAX_TEXT]) from error


def parse_samples(kind: str, data: bytes, began: float) -> CapturedSamples:
    """Rows of one GPU (or link) are in order of time. Raises :class:`BadCapture`.

    A last line without an end, which a sampler that was killed leaves, is not read.
    """
    keys, columns = COLUMNS[kind]
    lines = data.split(b"\n")
    if len(data) > MAX_FILE_BYTES or len(lines) > MAX_ROWS:
        raise BadCapture(f"more than {MAX_FILE_BYTES} bytes or {MAX_ROWS} rows")
    if lines[0].decode("ascii", "replace") != ",".join(("t", *columns)):
        raise BadCapture(f"line 1: expected the columns t, {', '.join(columns)}")
    rows: dict[Key, list[tuple[float, Row]]] = {}
    for number, line in enumerate(lines[1:-1], 2):
        try:
            t, key, row = _parse_row(line, keys, len(columns), began)
            known = rows.setdefault(key, [])
            if known and t < known[-1][0]:
                raise ValueError("it goes back in time")
        except ValueError as error:
            raise BadCapture(f"line {number}: {str(error)[:MAX_TEXT]}") from error
        known.append((t, row))
    return CapturedSamples(columns[keys:], rows)


def _parse_row(line: bytes, keys: int, columns: int, began: float) -> tuple[float, Key, Row]:
    cells = line.split(b",")
    if len(cells) != 1 + columns:
        raise ValueError(f"{len(cells)} cells, expected {1 + columns}")
    key = tuple(int(cell) for cell in cells[1 : 1 + keys])
    if not all(-1 <= part < MAX_GPUS for part in key) or key[0] < 0:
        raise ValueError("no such GPU or link")
    row = tuple(None if not cell else _finite(cell) for cell in cells[1 + keys :])
    return _finite(cells[0]) - began, key, row


def _finite(cell: bytes) -> float:
    number = float(cell)
    if not math.isfinite(number) or abs(number) > MAX_NUMBER:
        raise ValueError(f"not a finite number: {cell[:40]!r}")
    return number
