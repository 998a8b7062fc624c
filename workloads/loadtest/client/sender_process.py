#!/usr/bin/env python3
"""One sending process, spoken to by lines on standard input: its job, then the time to begin (of
the monotonic clock), then nothing until it is to end early, or its parent has gone.

It answers with lines of JSON on standard output: that it is ready, what it has done each half
second, and at last the same with `over`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    __package__ = ".".join(Path(__file__).resolve().parent.parts[-2:])

from ..base.job import Job
from ..base.records import RequestRecord, to_line
from .sender import Sender

REPORT_S = 0.5
# Lines are appended in whole writes of about this size: other processes append to the same file.
WRITE_BYTES = 256 * 1024
MOST_FILES = 16_384


class RecordFile:
    """Appends lines; several processes may have the same file open."""

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o644) if path else -1
        self._lines: list[str] = []
        self._size = 0

    def add(self, record: RequestRecord) -> None:
        if self._fd < 0:
            return
        line = to_line(record)
        self._lines.append(line)
        self._size += len(line) + 1
        if self._size >= WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Raises ``OSError``."""
        if self._lines:
            os.write(self._fd, ("\n".join(self._lines) + "\n").encode())
            self._lines.clear()
            self._size = 0


async def run(job: Job) -> None:
    """The whole stage."""
    file = RecordFile(job.record)
    sender = Sender(job, file.add)
    gc.collect()
    gc.freeze()
    gc.disable()  # records hold no cycles, and a collection is a pause
    loop = asyncio.get_running_loop()
    threading.Thread(target=_wait_for_stop, args=(loop, sender), daemon=True).start()
    reporting = asyncio.create_task(_report(sender, file))
    try:
        await sender.run()
    finally:
        reporting.cancel()
        file.flush()
    _print(sender, over=True)


def _wait_for_stop(loop: asyncio.AbstractEventLoop, sender: Sender) -> None:
    sys.stdin.readline()
    loop.call_soon_threadsafe(sender.stop)


async def _report(sender: Sender, file: RecordFile) -> None:
    while True:
        await asyncio.sleep(REPORT_S - monotonic() % REPORT_S)
        file.flush()
        _print(sender)


def _print(sender: Sender, *, over: bool = False) -> None:
    counts = sender.counts
    used = resource.getrusage(resource.RUSAGE_SELF)
    entry = {
        **asdict(counts),
        "in_flight": counts.in_flight,
        "at": monotonic() - sender.job.start_s,
        "over": over,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_kib": used.ru_maxrss,
    }
    sys.stdout.write(json.dumps(entry) + "\n")
    sys.stdout.flush()


def main() -> None:
    job = Job.from_json(sys.stdin.readline())
    _ask_for_files()
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    start = sys.stdin.readline()
    if start.strip() not in {"", "stop"}:
        job = replace(job, start_s=float(start))
        if job.load or job.times_s:
            _ask_for_real_time()
        asyncio.run(run(job))
    os._exit(0)  # a daemon thread waits for standard input


def _ask_for_files() -> None:
    """Each request in flight is a connection; the usual limit is 1,024 open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _ask_for_real_time() -> None:
    """Where the system permits it (root, or an rtprio limit), a request that is due does not wait
    for a processor that others keep busy. With one processor the server would wait for us.
    """
    if hasattr(os, "sched_setscheduler") and (os.cpu_count() or 1) > 1:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


if __name__ == "__main__":
    main()
