"""Which files of a folder travel.

In a git work tree: what git tracks, and what it neither tracks nor ignores. Elsewhere, and in a
folder that its repository ignores as a whole (an installed package in a project's ``.venv``): every
file. Both without the names in ``adapters.sync.ignore_rules``. Submodules and repositories
inside the folder are listed by their own rules. Only regular files and links travel.
"""

from __future__ import annotations

import os
import re
import stat
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from operator import attrgetter
from pathlib import Path

from orchestrator.adapters.sync import git_listing as git
from orchestrator.adapters.sync.ignore_rules import Account, Rules, Skipped
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.manifest import MAX_PART_BYTES, RESERVED, path_fault

MAX_DEPTH = 64
LARGE_FILE_BYTES = 100 * 1000 * 1000
LARGE_TOTAL_BYTES = 500 * 1000 * 1000
BIGGEST = 3

# What tells that a file changed, without reading it. One row of `FileList.stats`.
FIELDS = ("st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
WIDTH = len(FIELDS)
MODE, SIZE, MTIME, CTIME = range(4)
_fields = attrgetter(*FIELDS)
_INT64 = (1 << 63) - 1

# Control characters, what is not UTF-8, our own folder, in names joined by NUL.
_SUSPICIOUS = re.compile(rf"[\x01-\x1f\x7f-\x9f\ud800-\udfff]|(?:\A|\0){re.escape(RESERVED)}/")


@dataclass(slots=True)
class FileList:
    """``names`` relative to ``folder``, and flattened rows of ``FIELDS`` for each in ``stats``."""

    folder: Path
    names: list[str] = field(default_factory=list)
    stats: array[int] = field(default_factory=lambda: array("q"))
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        return sum(self.stats[SIZE::WIDTH])


def list_tree(folder: Path, own: Path | None = None) -> FileList:
    """What travels of ``folder``, what not and by which rule, and warnings about its size.

    Nothing in the folder ``own``, where the coordinator keeps its files, travels.

    Raises ``UsageError`` if the folder cannot be read or git refuses to list it.
    """
    try:
        walk = _Walk(folder, Rules.of(folder, own))
        walk.repository("", 0)
    except OSError as error:
        raise UsageError(
            "the folder cannot be read",
            id="OR-SYNC-002",
            where=error.filename or folder,
            why=error.strerror or str(error),
            remedy="check the path and its permissions",
        ) from error
    files = walk.files
    files.skipped = walk.account.summary()
    files.warnings = (*walk.notes, *_size_warnings(files))
    return files


def list_file(path: Path) -> FileList:
    """A single regular file as a list. Raises ``UsageError``."""
    try:
        names, stats = _stat_all(path.parent, [path.name])
    except OSError:
        names, stats = [], array("q")
    if not names or _fault(path.name, stats[MODE]):
        raise UsageError(
            "there is no such file",
            id="OR-SYNC-002",
            where=path,
            remedy="check the path and its permissions",
        )
    return FileList(path.parent, names, stats)


class _Walk:
    """Collects the files of a folder and of the repositories in it."""

    def __init__(self, folder: Path, rules: Rules) -> None:
        self.files = FileList(folder)
        self.account = Account(folder)
        self.notes: list[str] = []
        self._rules = rules

    def repository(self, prefix: str, depth: int) -> None:
        """Everything below ``prefix``, which is empty or ends in ``/``."""
        folder = self.files.folder / prefix
        query = git.Query.start(folder)
        if query is None:
            if any((above / ".git").exists() for above in (folder, *folder.absolute().parents)):
                self.notes.append("git is not installed: .gitignore was not applied")
            self._plain(prefix)
            return
        with query:
            tracked = query.tracked()
            if tracked is None:
                self._plain(prefix)
                return
            inner = self._take(prefix, tracked, tracked_by_git=True)
            others = query.others()
            if not tracked and not others and git.ignores(folder):
                self._plain(prefix)
                return
            inner += self._take(prefix, others, tracked_by_git=False)
            self._explain(prefix, folder, query.ignored())
        for name in inner:
            self._inner(name, depth)

    def _inner(self, name: str, depth: int) -> None:
        """A folder where git names a file: a submodule or another repository."""
        path = self.files.folder / name
        if (path / ".git").exists() and depth < MAX_DEPTH:
            self.repository(f"{name}/", depth + 1)
        elif not any(path.iterdir()):
            self.account.add("submodule that is not checked out", name)

    def _explain(self, prefix: str, folder: Path, ignored: list[str]) -> None:
        known = git.reasons(folder, ignored[: git.MAX_IGNORED])
        for name, rule in known:
            self.account.add(rule, prefix + name)
        for name in ignored[git.MAX_IGNORED :]:
            self.account.add("other rules of git", prefix + name)

    def _take(self, prefix: str, names: list[str], *, tracked_by_git: bool) -> list[str]:
        """Add the files among ``names``; the folders among them are returned."""
        full = [prefix + name for name in names] if prefix else names
        kept = self._rules.split(full, self.account, tracked=tracked_by_git)
        present, stats = _stat_all(self.files.folder, kept)
        return self._add(present, stats)

    def _add(self, names: list[str], stats: array[int]) -> list[str]:
        if _all_fine(names, stats):
            self.files.names += names
            self.files.stats += stats
            return []
        folders = []
        for index, name in enumerate(names):
            row = stats[index * WIDTH : (index + 1) * WIDTH]
            if stat.S_ISDIR(row[MODE]):
                folders.append(name.rstrip("/"))
            elif fault := _fault(name, row[MODE]):
                self.account.add(fault, name)
            else:
                self.files.names.append(name)
                self.files.stats += row
        return folders

    def _plain(self, prefix: str) -> None:
        """Walk without git."""
        names: list[str] = []
        pending = [prefix]
        while pending:
            current = pending.pop()
            with os.scandir(self.files.folder / current) as entries:
                for entry in entries:
                    name = current + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        name += "/"
                    rule = self._rules.rule(name)
                    if rule:
                        self.account.add(rule, name)
                    else:
                        (pending if name[-1] == "/" else names).append(name)
        # In the order in which git names files: the same list again means the same folder.
        self._add(*_stat_all(self.files.folder, sorted(names)))


def _stat_all(folder: Path, names: list[str]) -> tuple[list[str], array[int]]:
    """The rows of all ``names`` that exist."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        look = partial(os.lstat, dir_fd=fd)
        try:  # 50,000 files take a tenth of a second this way, all of it in C
            return names, array("q", chain.from_iterable(map(_fields, map(look, names))))
        except (OSError, OverflowError):
            return _stat_each(look, names)
    finally:
        os.close(fd)


def _stat_each(look: partial[os.stat_result], names: Iterable[str]) -> tuple[list[str], array[int]]:
    """The same where a tracked file was deleted, or a number exceeds 64 bits."""
    present, stats = [], array("q")
    for name in names:
        try:
            status = look(name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        present.append(name)
        stats.extend(value & _INT64 for value in _fields(status))
    return present, stats


def _all_fine(names: list[str], stats: array[int]) -> bool:
    """Whether every name is a safe path of a regular file or link: the quick answer."""
    kinds = {stat.S_IFMT(mode) for mode in set(stats[MODE::WIDTH])}
    if not kinds <= {stat.S_IFREG, stat.S_IFLNK}:
        return False
    text = "\0".join(names)
    longest = max(map(len, names), default=0)
    if longest > (MAX_PART_BYTES if text.isascii() else MAX_PART_BYTES // 4):
        return not any(map(path_fault, names))
    return not _SUSPICIOUS.search(text)


def _fault(name: str, mode: int) -> str:
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        return "no regular file"
    return path_fault(name)


def _size_warnings(files: FileList) -> list[str]:
    sizes = files.stats[SIZE::WIDTH]
    total = sum(sizes)
    biggest = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)[:BIGGEST]
    large = [index for index in biggest if sizes[index] > LARGE_FILE_BYTES]
    named = ", ".join(f"{files.names[i]} ({sizes[i] / 1e6:.0f} MB)" for i in large or biggest)
    remedy = "leave out with .orchestrateignore what the job does not read"
    if total > LARGE_TOTAL_BYTES:
        return [f"{total / 1e6:.0f} MB travel from {files.folder}, most of all {named}; {remedy}"]
    return [f"large files travel from {files.folder}: {named}; {remedy}"] if large else []
