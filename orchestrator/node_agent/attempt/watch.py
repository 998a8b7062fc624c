"""Streams what an attempt writes: the supervisor's records, logs, what ranks report and exchange.

Every frame tells ``offset`` (its first byte in the file) and ``next``; a new watch that starts from
the last ``next`` of each file continues without a gap or a repeat. The watcher grants credit as it
consumes, so that a slow one neither fills memory nor holds up answers on the same channel.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time

from orchestrator.node_agent.attempt.supervisor_state import concluded_record, supervisor_state
from orchestrator.node_agent.base.agent_errors import BAD_REQUEST, AgentFault
from orchestrator.node_agent.base.node_layout import STREAM, AttemptLayout, check_name
from orchestrator.node_agent.base.wire import CHUNK_BYTES, FrameWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from re import Pattern
    from typing import Any

BUSY_POLL_S = 0.02
IDLE_POLL_S = 0.06
ALIVE_CHECK_S = 0.5
WINDOW_BYTES = 4 * 1024 * 1024
FRAME_COST_BYTES = 256  # so that many tiny frames count, too
MAX_STREAMS = 4096
MAX_OFFSET = 1 << 53
REPORT = re.compile(r"rank-\d{1,7}\.jsonl\Z")
EXCHANGE = re.compile(r"exchange-\d{1,7}\.jsonl\Z")
LOG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.(out|err)\Z")


class Credit:
    """How many bytes may still be sent before the watcher has to consume some."""

    def __init__(self) -> None:
        self._left = WINDOW_BYTES
        self._changed = threading.Condition()
        self.closed = False

    def take(self, size: int) -> bool:
        """Wait for credit, then spend ``size``. False once closed."""
        with self._changed:
            while self._left <= 0 and not self.closed:
                self._changed.wait()
            self._left -= size
            return not self.closed

    def grant(self, size: int) -> None:
        with self._changed:
            self._left = min(WINDOW_BYTES, self._left + size)
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def pause(self, timeout_s: float) -> None:
        with self._changed:
            if not self.closed:
                self._changed.wait(timeout_s)


def check_cursors(value: object) -> dict[str, int]:
    """``{"events": offset, "rank-0.out": offset, ...}``."""
    if not isinstance(value, dict) or len(value) > MAX_STREAMS:
        raise AgentFault(BAD_REQUEST, "'cursors' is not an object of a sensible size")
    for name, offset in value.items():
        if name != "events":
            check_name(name, "stream name", STREAM)
        if type(offset) is not int or not 0 <= offset <= MAX_OFFSET:
            raise AgentFault(BAD_REQUEST, f"cursor {name!r} is not an offset")
    return dict(value)


class WatchStream:
    """One watch of one attempt; :meth:`run` is its thread."""

    def __init__(
        self,
        id: str,
        writer: FrameWriter,
        attempt: AttemptLayout,
        cursors: Mapping[str, int],
        rate_limit: float | None = None,
    ) -> None:
        self.id = id
        self.credit = Credit()
        self._writer = writer
        self._attempt = attempt
        self._cursors = dict(cursors)
        self._rate_limit = rate_limit
        self._allowance = 0.0
        self._allowed_at = time.monotonic()
        self._checked_at = 0.0

    def run(self) -> None:
        """Send until closed, or until the supervisor is gone and everything it left is sent."""
        quiet = 0
        pause_s = BUSY_POLL_S
        while not self.credit.closed:
            moved = self._poll()
            quiet = 0 if moved else quiet + 1
            if quiet >= 2 and self._supervisor_gone():
                self._say_goodbye()
                return
            pause_s = BUSY_POLL_S if moved else min(pause_s * 1.5, IDLE_POLL_S)
            if not moved or self._rate_limit:
                self.credit.pause(pause_s)

    def _poll(self) -> bool:
        """Send what is new; the few bytes that say most come first."""
        moved = self._poll_events()
        moved |= self._poll_directory("report", self._attempt.report, REPORT)
        moved |= self._poll_directory("exchange", self._attempt.exchange, EXCHANGE)
        moved |= self._poll_directory("log", self._attempt.logs, LOG)
        return moved

    def _poll_events(self) -> bool:
        start = self._cursors.get("events", 0)
        data = _read(self._attempt.events, start)
        end = data.rfind(b"\n") + 1
        for line in data[:end].splitlines(keepends=True):
            following = start + len(line)
            record = json.loads(line)
            if record.get("event") == "concluded":
                self._checked_at = 0.0
            self._send("supervisor", len(line), record=record, offset=start, next=following)
            self._cursors["events"] = start = following
        return end > 0

    def _poll_directory(self, event: str, path: str, wanted: Pattern[str]) -> bool:
        moved = False
        whole_lines = event != "log"
        try:
            names = sorted(filter(wanted.match, os.listdir(path)))
        except FileNotFoundError:
            return False
        for name in names[:MAX_STREAMS]:
            start = self._cursors.get(name, 0)
            data = _read(os.path.join(path, name), start, self._allowed(event))
            if whole_lines and len(data) < CHUNK_BYTES:
                data = data[: data.rfind(b"\n") + 1]
            elif whole_lines:
                # A line longer than a chunk goes in pieces: the reader's bound drops it.
                data = data[: (data.rfind(b"\n") + 1) or len(data)]
            if data:
                following = start + len(data)
                self._allowance -= len(data)
                self._send(event, len(data), data, file=name, offset=start, next=following)
                self._cursors[name] = following
                moved = True
        return moved

    def _allowed(self, event: str) -> int:
        """How much of a file may go now. Only logs are ever slowed down."""
        if not self._rate_limit or event != "log":
            return CHUNK_BYTES
        now = time.monotonic()
        earned = (now - self._allowed_at) * self._rate_limit
        self._allowance = min(self._rate_limit, self._allowance + earned)
        self._allowed_at = now
        return max(0, min(CHUNK_BYTES, int(self._allowance)))

    def _send(self, event: str, size: int, payload: bytes = b"", **fields: Any) -> None:
        cost = size + FRAME_COST_BYTES
        if self.credit.take(cost):
            self._writer.send({"event": event, "watch": self.id, "cost": cost, **fields}, payload)

    def _supervisor_gone(self) -> bool:
        if time.monotonic() - self._checked_at < ALIVE_CHECK_S:
            return False
        self._checked_at = time.monotonic()
        state = supervisor_state(self._attempt)
        return state is not None and not state.alive and not self._poll()

    def _say_goodbye(self) -> None:
        """``drained`` after a conclusion; ``supervisor-lost`` if there is none."""
        event = "drained" if concluded_record(self._attempt) else "supervisor-lost"
        self._send(event, 0)


def _read(path: str, start: int, limit: int = CHUNK_BYTES) -> bytes:
    """At most ``limit`` bytes from ``start``; nothing from links and special files."""
    try:
        status = os.lstat(path)
        if status.st_size <= start or not limit or not _regular(status.st_mode):
            return b""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(fd, limit, start)
    finally:
        os.close(fd)


def _regular(mode: int) -> bool:
    return mode & 0o170000 == 0o100000
