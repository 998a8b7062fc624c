"""The journal: one JSON line per event, written before anybody acts on the event.

A line is ``{"seq": 0.., "t": seconds since the epoch, "event": {"type": ...}}``. A crash can tear
only the last line; that one was never acknowledged, so readers skip it and the next writer removes
it. Damage anywhere else is an error, never skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from orchestrator.adapters.store.atomic_files import sync_dir
from orchestrator.core.base.errors import InternalError

_READ_LIMIT = 8 * 1024 * 1024
_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))


class JournalDamaged(InternalError):
    """A line that is not the torn last one cannot be read."""

    def __init__(self, path: Path, line: int, why: str) -> None:
        super().__init__(
            "the journal is damaged",
            id="OR-STORE-001",
            where=f"{path}:{line}",
            why=why,
            remedy="keep the file for inspection; logs and artifacts beside it are intact",
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One journaled event; ``t`` in seconds since the epoch on the coordinator's clock."""

    seq: int
    t: float
    event: Mapping[str, Any]


class JournalReader:
    """Reads complete lines from byte ``offset`` on; each call of ``read`` continues after the last.

    A reader that starts at a later offset is told the ``seq`` it must find there.
    """

    def __init__(self, path: Path, *, offset: int = 0, seq: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.seq = seq

    def read(self) -> list[Entry]:
        """The complete lines since the last call, in bounded portions: empty = nothing new for now.

        A missing file reads as empty. Raises :class:`JournalDamaged`.
        """
        return list(self.read_each())

    def read_each(self) -> Iterator[Entry]:
        """The same one by one: what was taken of them counts as read."""
        for line in self._complete_lines():
            entry = self._parse(line)
            self.offset += len(line)
            self.seq += 1
            yield entry

    def read_all(self) -> Iterator[Entry]:
        """Everything up to the present end of the file."""
        while entries := self.read():
            yield from entries

    def _complete_lines(self) -> list[bytes]:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                portion = file.read(_READ_LIMIT)
                if len(portion) == _READ_LIMIT and b"\n" not in portion:
                    raise JournalDamaged(self.path, self.seq + 1, "the line is longer than 8 MiB")
        except FileNotFoundError:
            return []
        return [line + b"\n" for line in portion.split(b"\n")[:-1]]

    def _parse(self, line: bytes) -> Entry:
        try:
            record = json.loads(line)
            entry = Entry(int(record["seq"]), float(record["t"]), record["event"])
        except (ValueError, KeyError, TypeError) as error:
            raise JournalDamaged(self.path, self.seq + 1, f"not a journal line: {error}") from error
        if entry.seq != self.seq:
            why = f"expected entry {self.seq}, found entry {entry.seq}"
            raise JournalDamaged(self.path, self.seq + 1, why)
        return entry


class Journal:
    """The writer. What was appended survives the death of this process at once, and a power cut
    from the next ``sync`` on.

    Opening an existing journal removes a torn last line and continues its numbering. After a failed
    write (a full disk) the file is cut back to its last complete entry.
    """

    def __init__(self, path: Path) -> None:
        reader = JournalReader(path)
        for _ in reader.read_all():
            pass
        self.path = path
        self._seq = reader.seq
        self._end = reader.offset
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._fd, self._end)
        os.fsync(self._fd)
        self._synced = True
        sync_dir(path.parent)

    def append(self, t: float, event: Mapping[str, Any]) -> int:
        """Write one entry; returns its number. Raises ``OSError`` with nothing appended."""
        return self.append_many([(t, event)])[0]

    def append_many(self, entries: Iterable[tuple[float, Mapping[str, Any]]]) -> range:
        """Write (time, event) pairs; returns their numbers.

        Raises ``OSError`` with nothing appended.
        """
        lines = [_encode(seq, t, event) for seq, (t, event) in enumerate(entries, self._seq)]
        if lines:
            self._write(b"".join(lines))
        first, self._seq = self._seq, self._seq + len(lines)
        return range(first, self._seq)

    def _write(self, block: bytes) -> None:
        try:
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            os.ftruncate(self._fd, self._end)
            raise
        self._end += len(block)
        self._synced = False

    def sync(self) -> None:
        """Make everything appended so far survive a power cut. Raises ``OSError``."""
        if not self._synced:
            os.fsync(self._fd)
            self._synced = True

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _encode(seq: int, t: float, event: Mapping[str, Any]) -> bytes:
    record = {"seq": seq, "t": t, "event": event}
    return _ENCODER.encode(record).encode("ascii") + b"\n"
