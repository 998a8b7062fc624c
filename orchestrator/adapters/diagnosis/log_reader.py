"""Logs of any size to clues, in bounded memory."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from orchestrator.core.diagnosis.cleaning import clean_log_text
from orchestrator.core.diagnosis.diagnosis_model import SHOWN_LINE, Clue, LogSource
from orchestrator.core.diagnosis.line_times import last_time
from orchestrator.core.diagnosis.matching import Found, match_rules
from orchestrator.core.diagnosis.observations import LATEST, Remark

MIB = 1 << 20
CHUNK = MIB
MAX_LINE = 64 << 10  # a longer line is cut into several, as far as matching goes
LOOK_BACK = 16 << 10  # characters that are kept of what was read, for what goes on in the next
MAX_CLUES = 20_000
MAX_ALIKE = 5  # clues by one rule in one rank's log: the first ones count
TAIL_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How much of a file is looked at, in bytes: its beginning and its end, if it is larger.

    What lies between is only counted, if it is no more than ``counted``: beyond that, lines have no
    numbers.
    """

    head: int
    tail: int
    counted: int


WHOLE = Window(head=32 * MIB, tail=96 * MIB, counted=1 << 40)
ENDS = Window(head=MIB // 2, tail=3 * MIB // 2, counted=64 * MIB)


class Gathering:
    """Collects what is found in one log after the other."""

    def __init__(self) -> None:
        self.clues: list[Clue] = []
        self._remarks: list[Remark] = []
        self._latest: dict[tuple[str, LogSource], Remark] = {}
        self.tails: dict[str, list[tuple[int, str]]] = {}
        self.sources: list[LogSource] = []
        self.lines = 0  # that were looked at, in all logs
        self.skipped: dict[str, int] = {}
        self._alike: Counter[tuple[str, str, int | None]] = Counter()

    def read_file(self, path: Path, source: LogSource, window: Window = WHOLE) -> None:
        """What ``window`` shows of ``path``. Raises ``OSError``."""
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            log = _Log(self, source)
            if size <= window.head + window.tail:
                log.read(file, size)
            else:
                log.read(file, window.head)
                log.skip(file, size - window.head - window.tail, window.counted)
                log.read(file, window.tail)
                self.skipped[source.name] = size - window.head - window.tail
            log.finish()

    def read_stream(self, stream: BinaryIO, source: LogSource) -> None:
        """All of ``stream``, however long."""
        log = _Log(self, source)
        log.read(stream, None)
        log.finish()

    @property
    def remarks(self) -> list[Remark]:
        """What means something only beside others; of signs of life each writer's last."""
        return [*self._remarks, *self._latest.values()]

    def add(self, found: Found) -> None:
        for clue in found.clues:
            if self._is_wanted(clue.rule.id, clue.source) and len(self.clues) < MAX_CLUES:
                self.clues.append(clue)
        for remark in found.remarks:
            if remark.kind in LATEST:
                if len(self._latest) < MAX_CLUES:
                    self._latest[remark.kind, remark.source] = remark
            elif self._is_wanted(remark.kind, remark.source) and len(self._remarks) < MAX_CLUES:
                self._remarks.append(remark)

    def _is_wanted(self, kind: str, source: LogSource) -> bool:
        key = (kind, source.name, source.rank)
        if len(self._alike) >= 4 * MAX_CLUES and key not in self._alike:
            return False
        self._alike[key] += 1
        return self._alike[key] <= MAX_ALIKE


class _Log:
    """One log: chunks become whole lines, which keep their numbers."""

    def __init__(self, gathering: Gathering, source: LogSource) -> None:
        self._gathering = gathering
        self._source = source
        self._rest = b""
        self._line: int | None = 1
        self._at: float | None = None
        self._before = ""  # the last lines that were examined
        self._tail: deque[tuple[int, str]] = deque(maxlen=TAIL_LINES)
        gathering.sources.append(source)

    def read(self, file: BinaryIO, count: int | None) -> None:
        """The next ``count`` bytes; None = all there are."""
        for chunk in _read_chunks(file, count):
            content = self._rest + chunk
            end = content.rfind(b"\n") + 1
            if not end and len(content) > MAX_LINE:
                end = len(content)
            self._rest = content[end:]
            if end:
                self._examine(content[:end])

    def skip(self, file: BinaryIO, count: int, counted: int) -> None:
        """Leave ``count`` bytes out."""
        self.finish()
        self._before = ""
        if count > counted:
            file.seek(count, 1)
            self._line = None
            return
        for chunk in _read_chunks(file, count):
            if self._line is not None:
                self._line += chunk.count(b"\n")

    def finish(self) -> None:
        """The last line may have no end."""
        if self._rest:
            self._examine(self._rest)
            self._gathering.lines += 1
        self._rest = b""
        self._gathering.tails[self._source.name] = list(self._tail)

    def _examine(self, content: bytes) -> None:
        text = clean_log_text(content.decode("utf-8", "replace"))
        first = self._line or 0
        found = match_rules(text, self._source, first_line=first, at=self._at, before=self._before)
        self._gathering.add(found if self._line is not None else _unnumbered(found))
        last = text[-4 * MAX_LINE :].rstrip("\n").split("\n")[-TAIL_LINES:]
        lines = text.count("\n")
        whole = lines + (not text.endswith("\n"))
        self._gathering.lines += lines
        for number, line in enumerate(last, first + whole - len(last)):
            self._tail.append((number if self._line is not None else 0, line[-SHOWN_LINE:]))
        self._at = last_time(text[-MAX_LINE:]) or self._at
        self._before = _last_lines(self._before + text)
        if self._line is not None:
            self._line += lines


def _last_lines(text: str) -> str:
    """The end of ``text``, from the beginning of a line on; nothing if it ends within one."""
    return text[text.find("\n", max(0, len(text) - LOOK_BACK)) + 1 :] if text[-1:] == "\n" else ""


def _unnumbered(found: Found) -> Found:
    return Found(
        tuple(replace(clue, line=0) for clue in found.clues),
        tuple(replace(remark, line=0) for remark in found.remarks),
    )


def _read_chunks(file: BinaryIO, count: int | None) -> Iterator[bytes]:
    left = count
    while left is None or left > 0:
        chunk = file.read(CHUNK if left is None else min(CHUNK, left))
        if not chunk:
            return
        left = None if left is None else left - len(chunk)
        yield chunk
