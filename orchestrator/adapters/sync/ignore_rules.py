"""Which names do not travel, and the account of what was left out by which rule."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".orchestrateignore"
MAX_IGNORE_BYTES = 1024 * 1024
MAX_EXAMPLES = 3
# Counting what lies in skipped folders must not take longer than sending the rest.
MAX_COUNTED = 5_000

DEFAULT_NAMES = frozenset(
    ".git .hg .svn .orchestrate __pycache__ .venv venv node_modules .mypy_cache .pytest_cache "
    ".ruff_cache .hypothesis .tox .nox .ipynb_checkpoints .DS_Store".split()
)
DEFAULT_ENDINGS = (".pyc", ".pyo")


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


class Rules:
    """The names that never travel, and those in the root's ``.orchestrateignore``.

    The ignore file has gitignore's syntax and wins; ``!name`` brings a default name back. It also
    applies to files that git tracks. ``own`` is where the coordinator keeps its files, if that is
    in here: they change while they would be read, and never travel.
    """

    def __init__(self, ignore_text: str = "", own: str = "") -> None:
        self._own = own
        lines = (line.strip() for line in ignore_text.splitlines())
        self._patterns = [line for line in lines if line and not line.startswith("#")]
        self._spec = _compiled(self._patterns) if self._patterns else None

    @classmethod
    def of(cls, folder: Path, own: Path | None = None) -> Rules:
        """The rules for ``folder``. Raises ``OSError`` if its ignore file cannot be read."""
        inside = "" if own is None else _inside(folder, own)
        try:
            with (folder / IGNORE_FILE).open(encoding="utf-8", errors="replace") as file:
                return cls(file.read(MAX_IGNORE_BYTES), inside)
        except FileNotFoundError:
            return cls(own=inside)

    def rule(self, path: str, *, tracked: bool = False) -> str:
        """The rule that leaves ``path`` out (a folder's ends in ``/``), or ``""``."""
        if self._own and path.startswith(self._own):
            return "files of orchestrate itself"
        if self._spec is not None:
            result = self._spec.check_file(path)
            if result.include and result.index is not None:
                return f"{IGNORE_FILE}: {self._patterns[result.index]}"
            if result.include is False:
                return ""
        return "" if tracked else _default_rule(path)

    def split(self, names: list[str], account: Account, *, tracked: bool) -> list[str]:
        """``names`` without those that a rule leaves out, which go to ``account``."""
        if tracked and self._spec is None:
            return names
        kept = []
        for name in names:
            rule = self.rule(name, tracked=tracked)
            if rule:
                account.add(rule, name)
            else:
                kept.append(name)
        return kept


def _inside(folder: Path, own: Path) -> str:
    """``own`` relative to ``folder`` with a ``/`` at its end, or ``""`` if it is not below it."""
    folder, own = folder.resolve(), own.resolve()
    return f"{own.relative_to(folder).as_posix()}/" if folder in own.parents else ""


def _compiled(patterns: list[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(patterns)


def _default_rule(path: str) -> str:
    found = DEFAULT_NAMES.intersection(path.split("/"))
    if found:
        return f"by default: {min(found)}"
    if path.endswith(DEFAULT_ENDINGS):
        return f"by default: *{Path(path).suffix}"
    return ""


@dataclass(slots=True)
class _Entry:
    files: int = 0
    bytes: int = 0
    at_least: bool = False
    examples: list[str] = field(default_factory=list)


class Account:
    """Sums up per rule what was left out below ``folder``; bounded in work and in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._entries: dict[str, _Entry] = {}
        self._budget = MAX_COUNTED

    def add(self, rule: str, name: str) -> None:
        """A file or a folder with everything in it."""
        entry = self._entries.setdefault(rule, _Entry())
        if len(entry.examples) < MAX_EXAMPLES:
            entry.examples.append("".join(c if c.isprintable() else "?" for c in name))
        for files, size in _contents(f"{self._folder}/{name}".rstrip("/")):
            if self._budget <= 0:
                entry.at_least = True
                break
            self._budget -= 1
            entry.files += files
            entry.bytes += size

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


def _contents(path: str) -> Iterator[tuple[int, int]]:
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
