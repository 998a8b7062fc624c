"""The output of a run's ranks as lines, followed by cursor: bounded, however much they write."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from orchestrator.adapters.store.layout import LogFile, RunFolder
from orchestrator.core.base.figures import format_figure
from orchestrator.parsing.replies.display_text import LineDecoder

BEGIN_BYTES = 32 << 10  # of a file that is there already, only its end is shown
PORTION_BYTES = 64 << 10  # of one file at once
BEHIND_BYTES = 256 << 10  # what is further behind than this is left out, and said
TURN_BYTES = 1 << 20  # of all files at once
MAX_FILES = 512
LISTED_S = 2.0  # so often new files are looked for


class LogLine(NamedTuple):
    """``source``: ``node/3`` or ``node/launcher``; ``stream``: ``out``, ``err``, or ``note`` for
    what we say ourselves.
    """

    source: str
    stream: str
    text: str


@dataclass(slots=True)
class _Tail:
    """How far a file was read."""

    path: Path
    source: str
    stream: str
    offset: int | None = None
    decoder: LineDecoder = field(default_factory=LineDecoder)

    def read(self) -> tuple[int, list[LogLine]]:
        """(bytes, lines) of a portion of what is new."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                left_out = self._skip(size)
                file.seek(self.offset or 0)
                chunk = file.read(PORTION_BYTES)
        except OSError:
            return 0, []
        self.offset = (self.offset or 0) + len(chunk)
        lines = [LogLine(self.source, self.stream, line) for line in self.decoder.feed(chunk)]
        if left_out:
            said = f"({format_figure(left_out, 'bytes')} not shown)"
            lines.insert(0, LogLine(self.source, "note", said))
        return len(chunk), lines

    def _skip(self, size: int) -> int:
        """Leave out what is too far behind: how many bytes that is."""
        most = BEGIN_BYTES if self.offset is None else BEHIND_BYTES
        at = self.offset or 0
        if size - at <= most:
            return 0
        self.offset, self.decoder = size - BEGIN_BYTES, LineDecoder()
        return self.offset - at


class LiveLog:
    """Remembers how far each file was read."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._tails: dict[LogFile, _Tail] = {}
        self._turn: deque[_Tail] = deque()
        self._listed_at = -1e9
        self.hidden = 0  # files beyond MAX_FILES

    def read(self) -> list[LogLine]:
        """What is new, at most about ``TURN_BYTES`` of it; then the other files have their turn."""
        self._list_files()
        lines: list[LogLine] = []
        left = TURN_BYTES
        for _ in range(len(self._turn)):
            if left <= 0:
                break
            count, found = self._turn[0].read()
            self._turn.rotate(-1)
            left -= count
            lines += found
        return lines

    def _list_files(self) -> None:
        if time.monotonic() - self._listed_at < LISTED_S:
            return
        self._listed_at = time.monotonic()
        known = [log for log in self._folder.log_files() if log.file.endswith((".out", ".err"))]
        known.sort(key=_by_rank)
        self.hidden = max(0, len(known) - MAX_FILES)
        followed = known[:MAX_FILES]
        if followed != list(self._tails):
            self._tails = {log: self._tails.get(log) or self._open(log) for log in followed}
            self._turn = deque(self._tails.values())

    def _open(self, log: LogFile) -> _Tail:
        name, _, stream = log.file.rpartition(".")
        path = self._folder.node_logs(log.node, log.attempt) / log.file
        return _Tail(path, f"{log.node}/{name.removeprefix('rank-')}", stream)


def _by_rank(log: LogFile) -> tuple[int, int, LogFile]:
    """The present attempt first, of it launchers, then ranks by number."""
    rank = log.file.removeprefix("rank-").partition(".")[0]
    return -log.attempt, int(rank) if rank.isdecimal() else -1, log
