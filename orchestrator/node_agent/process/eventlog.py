"""The supervisor's journal: one JSON object per line, on disk before anybody can see it."""

from __future__ import annotations

import json
import os
import re
import time

from orchestrator.node_agent.process.rank_shim import reserve_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAX_WAITING = 10_000
ROOM_BYTES = 128 * 1024
LAST_LINE_CHARACTERS = 500
# What steers terminals and is no text: CSI (colours, cursor), OSC (titles, links), DCS and its
# like, the other escapes, also unfinished ones; as ECMA-48 has them.
SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c]*(?:\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
TAIL_BYTES = 64 * 1024


class EventLog:
    """Appends records. What a full disk refuses waits in memory for the next :meth:`flush`."""

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)
        reserve_bytes(self._fd, ROOM_BYTES)
        self._size = 0
        self._sequence = 0
        self._waiting: list[bytes] = []

    def append(self, event: str, t: float | None = None, **fields: Any) -> None:
        """Add a record. ``t`` is the wall clock of what happened, by default now."""
        record = {
            "event": event,
            "seq": self._sequence,
            "t": time.time() if t is None else t,
            "mono": time.monotonic(),
            **fields,
        }
        self._sequence += 1
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        self.flush()

    def flush(self) -> bool:
        """Write what waits, whole lines only. True if nothing waits any more."""
        while self._waiting:
            line = self._waiting[0]
            try:
                if os.pwrite(self._fd, line, self._size) < len(line):
                    raise OSError("short write")
                os.fsync(self._fd)
            except OSError:
                self._cut()
                return False
            self._size += len(line)
            del self._waiting[0]
        return True

    def _cut(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            return


def last_line(*paths: str) -> str:
    """The last line with words in the first of ``paths`` that has one, without what steers a
    terminal: boxes and rules below the words have none.
    """
    drawn = ""
    for path in paths:
        for line in reversed(_tail(path).replace(b"\r", b"\n").split(b"\n")):
            text = _printable(line.decode(errors="replace"))[:LAST_LINE_CHARACTERS]
            if any(c.isalnum() for c in text):
                return text
            drawn = drawn or text
    return drawn


def _printable(text: str) -> str:
    return "".join(c for c in SEQUENCES.sub("", text) if c.isprintable()).strip()


def last_words(err: str, out: str, outcome: Mapping[str, Any]) -> str:
    """What explains an ending best: of an exit standard error, of a signal what was written last.

    Programs that exit write their reason to standard error and may flush standard output after it;
    a program that is killed has no such reason, and an old warning would stand in its place.
    """
    if "signalled" in outcome and _written_at(out) > _written_at(err):
        return last_line(out, err)
    return last_line(err, out)


def _written_at(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _tail(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL_BYTES))
            return file.read(TAIL_BYTES)
    except OSError:
        return b""
