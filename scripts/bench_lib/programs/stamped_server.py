"""A server that streams answers after known delays, and writes down when it really did what.

    (echo '{"first_ms": [10, 30], "gap_ms": [4, 6]}'; cat) | python3 stamped_server.py

Options are one line of JSON: bounds of the delay before the first token and of the gaps, drawn for
each token. It prints its port. Each further line of standard input is the path of a file that
receives a record (a line of JSON, as the load test's own) of each answer since the last one; the
path is printed when it is whole. The end of standard input ends it. Times are those of the
monotonic clock: when the last byte of the request was read, and just before each token is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import sys
from pathlib import Path
from random import Random
from time import monotonic

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "workloads"))

from loadtest.base.records import RequestRecord, to_line  # noqa: E402 - once it can be found
from loadtest.client.trivial_server import Slots, Stream  # noqa: E402


class StampedStream(Stream):
    """A connection whose answers are written down in ``records``."""

    def __init__(self, first_ms: list[float], gap_ms: list[float], records: list[str]) -> None:
        super().__init__(1.0, Slots(0))
        self._first_ms, self._gap_ms, self._records = first_ms, gap_ms, records
        self._random = Random(0)
        self._received_s = 0.0
        self._opened_s = 0.0
        self._written_s: list[float] = []

    def _answer(self, line: bytes, body: bytes) -> None:
        self._received_s, self._written_s = monotonic(), []
        super()._answer(line, body)

    def begin(self) -> bool:
        self._opened_s = monotonic()
        return super().begin()

    def _next_later(self) -> None:
        low, high = self._gap_ms if self._written_s else self._first_ms
        self._loop.call_later(self._random.uniform(low, high) / 1e3, self._next)

    def _next(self) -> None:
        now_s, left = monotonic(), self._left
        super()._next()
        if left:
            self._written_s.append(now_s)
        elif self._written_s:
            self._records.append(to_line(self._record(now_s)))

    def _record(self, now_s: float) -> RequestRecord:
        return RequestRecord(
            index=len(self._records),
            scheduled_s=self._received_s,
            sent_s=self._received_s,
            chunks_s=self._written_s,
            end_s=now_s,
            output_tokens=len(self._written_s),
            opened_s=self._opened_s if self._chat else math.nan,
            closed_s=now_s,
        )


def write_records(path: Path, records: list[str]) -> None:
    """One a line; they are forgotten then."""
    path.write_text("".join(f"{line}\n" for line in records))
    records.clear()


async def serve(options: dict[str, list[float]]) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    records: list[str] = []
    server = await loop.create_server(
        lambda: StampedStream(options["first_ms"], options["gap_ms"], records),
        "127.0.0.1",
        0,
        backlog=4096,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    while path := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        write_records(Path(path), records)
        print(path, flush=True)
    server.close()


def ask_for_real_time() -> None:
    """What it is late itself is in no stamp: where the system permits it, it does not wait for a
    processor that others keep busy.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


if __name__ == "__main__":
    ask_for_real_time()
    asyncio.run(serve(json.loads(sys.stdin.readline())))
