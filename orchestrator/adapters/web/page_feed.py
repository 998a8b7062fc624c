"""What the readers of one page get of its changes: parts of the page, and lines that are added.

Nothing is queued for anybody. A reader says how far it is and gets what is different now, so one
that is slow misses versions in between and costs no memory; of lines the latest are kept, and how
many it missed is said.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

MAX_LINES = 2000
MAX_MESSAGE_LINES = 500
MAX_STREAMS = 400


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a reader is: of which feed (``epoch``), which version, and which line comes next."""

    epoch: str
    version: int
    line: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.version}-{self.line}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for what is no cursor."""
        epoch, *numbers = text[:64].split("-")
        if len(numbers) != 2 or not all(n.isascii() and n.isdecimal() for n in numbers):
            return None
        return cls(epoch, int(numbers[0]), int(numbers[1]))


class Feed:
    """Parts are HTML by the id of the element that holds them; lines are HTML, too."""

    def __init__(self, max_lines: int = MAX_LINES) -> None:
        self._epoch = secrets.token_hex(4)
        self._version = 0
        self._parts: dict[str, tuple[int, str]] = {}
        self._lines: deque[str] = deque(maxlen=max_lines)
        self._next_line = 0
        self._changed = asyncio.Event()
        self._messages: dict[tuple[Cursor, bool], tuple[Cursor, bytes]] = {}

    @property
    def cursor(self) -> Cursor:
        """Where a reader is that has seen everything."""
        return Cursor(self._epoch, self._version, self._next_line)

    @property
    def parts(self) -> Mapping[str, str]:
        """As they are now."""
        return {name: html for name, (_, html) in self._parts.items()}

    @property
    def lines(self) -> Sequence[str]:
        """The latest ones."""
        return tuple(self._lines)

    def publish(self, parts: Mapping[str, str], lines: Sequence[str] = ()) -> bool:
        """Replace parts and add lines; False when that changes nothing. Never waits."""
        news = {name: html for name, html in parts.items() if self._html(name) != html}
        if not news and not lines:
            return False
        self._version += 1
        self._parts.update({name: (self._version, html) for name, html in news.items()})
        self._lines.extend(lines)
        self._next_line += len(lines)
        self._messages.clear()
        self._changed.set()
        self._changed = asyncio.Event()
        return True

    async def wait(self, seen: Cursor, limit_s: float) -> bool:
        """Until there is something after ``seen``; False when ``limit_s`` passed without."""
        changed = self._changed
        if seen != self.cursor:
            return True
        try:
            async with asyncio.timeout(limit_s):
                await changed.wait()
        except TimeoutError:
            return False
        return True

    def message(self, seen: Cursor | None) -> tuple[Cursor, bytes]:
        """What is different from ``seen`` as JSON, and where its reader is then. Readers that have
        seen the same share it.
        """
        begin = Cursor(self._epoch, 0, 0)
        known = seen if seen is not None and self._has_been(seen) else begin
        key = (known, known != seen)
        if key not in self._messages:
            self._messages[key] = self._encode(known, anew=known != seen)
        return self._messages[key]

    def _has_been(self, cursor: Cursor) -> bool:
        at = cursor.version <= self._version and cursor.line <= self._next_line
        return cursor.epoch == self._epoch and at

    def _encode(self, known: Cursor, *, anew: bool) -> tuple[Cursor, bytes]:
        parts = {n: html for n, (at, html) in self._parts.items() if at > known.version}
        first = self._next_line - len(self._lines)
        unread = list(self._lines)[max(0, known.line - first) :]
        shown = unread[-MAX_MESSAGE_LINES:]
        missed = max(0, self._next_line - known.line - len(shown))
        record = {"parts": parts, "lines": shown, "missed": 0 if anew else missed, "anew": anew}
        return self.cursor, json.dumps(record, ensure_ascii=True).encode()

    def _html(self, name: str) -> str | None:
        return self._parts[name][1] if name in self._parts else None


class Streams:
    """How many readers of feeds there are."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self.limit = limit
        self.open = 0

    @contextmanager
    def one_more(self) -> Iterator[None]:
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1
