"""What happened to one request: the only thing that figures are computed from."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

# Longest line of a file of records: a stream of a million chunks.
MAX_LINE_BYTES = 16 * 1024 * 1024


# `json.dumps` makes a new one for each call that wants no spaces.
_encode = json.JSONEncoder(separators=(",", ":")).encode

# It was in flight when the load was ended: neither a success nor a failure.
STOPPED = "stopped"


class RecordError(ValueError):
    """A line that is no record of a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """Times are seconds since the start of its stage, on one node's monotonic clock.

    ``scheduled_s``: when it was due. ``sent_s``: when its first byte was handed to the kernel; NaN
    if it never was. ``chunks_s``: when each chunk with content arrived, before it was parsed.
    ``end_s``: when the stream was over, whatever ended it. ``output_tokens``: as the server counts
    them, or one a chunk. ``opened_s``, ``closed_s``: when a chunk without content came before the
    first content, such as a role, and after the last, such as the reason of the end; NaN where
    none did. ``failure``: its kind; empty = it succeeded. ``stage`` counts the rates of
    a sweep.
    """

    index: int
    scheduled_s: float
    sent_s: float
    chunks_s: Sequence[float]
    end_s: float
    output_tokens: int
    prompt_tokens: int = 0
    stage: int = 0
    failure: str = ""
    detail: str = ""
    opened_s: float = math.nan
    closed_s: float = math.nan

    @property
    def succeeded(self) -> bool:
        return not self.failure

    @property
    def sent(self) -> bool:
        """Whether the load contained it."""
        return not math.isnan(self.sent_s)

    @property
    def lag_s(self) -> float:
        """How late it was sent."""
        return self.sent_s - self.scheduled_s

    @property
    def first_s(self) -> float:
        """When the first content arrived. Raises ``IndexError`` if none did."""
        return self.chunks_s[0]

    @property
    def last_s(self) -> float:
        """When the last content arrived. Raises ``IndexError`` if none did."""
        return self.chunks_s[-1]


def to_line(record: RequestRecord) -> str:
    """One line of JSON. Chunks are microseconds since the request was due: short, and exact enough
    for a clock that is read by a program.
    """
    due = record.scheduled_s
    entry: dict[str, object] = {
        "index": record.index,
        "scheduled": round(due, 6),
        "sent": None if not record.sent else round(record.sent_s, 6),
        "chunks_us": [round((chunk - due) * 1e6) for chunk in record.chunks_s],
        "end": round(record.end_s, 6),
        "output_tokens": record.output_tokens,
        "prompt_tokens": record.prompt_tokens,
        "stage": record.stage,
    }
    for name, at_s in (("opened_us", record.opened_s), ("closed_us", record.closed_s)):
        if not math.isnan(at_s):
            entry[name] = round((at_s - due) * 1e6)
    if record.failure:
        entry |= {"failure": record.failure, "detail": record.detail}
    return _encode(entry)


def from_line(line: str) -> RequestRecord:
    """The record of a line. Raises :class:`RecordError`."""
    try:
        entry = json.loads(line)
        due = _number(entry["scheduled"])
        sent = entry["sent"]
        return RequestRecord(
            index=int(entry["index"]),
            scheduled_s=due,
            sent_s=math.nan if sent is None else _number(sent),
            chunks_s=array("d", (due + _number(us) / 1e6 for us in entry["chunks_us"])),
            end_s=_number(entry["end"]),
            output_tokens=int(entry["output_tokens"]),
            prompt_tokens=int(entry["prompt_tokens"]),
            stage=int(entry["stage"]),
            failure=str(entry.get("failure", "")),
            detail=str(entry.get("detail", "")),
            opened_s=due + _number(entry["opened_us"]) / 1e6 if "opened_us" in entry else math.nan,
            closed_s=due + _number(entry["closed_us"]) / 1e6 if "closed_us" in entry else math.nan,
        )
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise RecordError(f"{type(error).__name__}: {error}") from None


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)


def read_records(file: IO[str], name: str) -> Iterator[RequestRecord]:
    """Every complete line; a last one without its end was being written when the program died.

    Raises :class:`RecordError` with file and line.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if not line.endswith("\n"):
            if len(line) >= MAX_LINE_BYTES:
                raise RecordError(f"{name}:{number}: longer than {MAX_LINE_BYTES} characters")
            return
        try:
            yield from_line(line)
        except RecordError as error:
            raise RecordError(f"{name}:{number}: {error}") from None
