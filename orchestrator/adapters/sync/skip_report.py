"""The account of what was left out, by which rule, and how much it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

MAX_EXAMPLES = 3
# Counting what lies in skipped folders must not take longer than sending the rest.
MAX_COUNTED = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """What one rule left out. ``at_least``: more than could be counted quickly."""

    rule: str
    files: int
    bytes: int
    at_least: bool
    examples: tuple[str, ...]

    def __str__(self) -> str:
        bound = "at least " if self.at_least else ""
        size = f"{self.bytes / 1e6:.1f} MB"
        noun = "file" if self.files == 1 else "files"
        return f"{self.rule}: {bound}{self.files} {noun}, {size} ({', '.join(self.examples)})"


@dataclass(slots=True)
class _SkippedByRule:
    files: int = 0
    bytes: int = 0
    at_least: bool = False
    examples: list[str] = field(default_factory=list)


class SkipSummary:
    """Sums up per rule what was left out below ``folder``; bounded in work and in memory.

    For each path of ``watched`` it remembers the rule.
    """

    def __init__(self, folder: Path, watched: Iterable[str] = ()) -> None:
        self._folder = str(folder)
        self._entries: dict[str, _SkippedByRule] = {}
        self._budget = MAX_COUNTED
        self._watched = dict.fromkeys(watched, "")

    def add(self, rule: str, name: str) -> None:
        """A file or a folder with everything in it."""
        for path in self._watched:
            if path == name or path.startswith(f"{name.rstrip('/')}/"):
                self._watched[path] = rule
        entry = self._entries.setdefault(rule, _SkippedByRule())
        if len(entry.examples) < MAX_EXAMPLES:
            entry.examples.append("".join(c if c.isprintable() else "?" for c in name))
        for files, size in _count_contents(f"{self._folder}/{name}".rstrip("/")):
            if self._budget <= 0:
                entry.at_least = True
                break
            self._budget -= 1
            entry.files += files
            entry.bytes += size

    def rule_of(self, path: str) -> str:
        """The rule that left out a watched path, or ``""``."""
        return self._watched[path]

    def summary(self) -> tuple[Skipped, ...]:
        """Largest first."""
        rows = [
            Skipped(
                rule=rule,
                files=entry.files,
                bytes=entry.bytes,
                at_least=entry.at_least,
                examples=tuple(entry.examples),
            )
            for rule, entry in self._entries.items()
        ]
        return tuple(sorted(rows, key=lambda row: (-row.bytes, row.rule)))


def _count_contents(path: str) -> Iterator[tuple[int, int]]:
    """(files, bytes) of each thing at or below ``path``; what cannot be read is passed over."""
    pending = [path]
    while pending:
        current = pending.pop()
        try:
            status = os.lstat(current)
            if stat.S_ISDIR(status.st_mode):
                yield 0, 0
                pending.extend(entry.path for entry in os.scandir(current))
            else:
                yield 1, status.st_size
        except OSError:
            continue
