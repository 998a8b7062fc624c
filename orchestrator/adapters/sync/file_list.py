"""Which files of a folder travel, and what is said about those that do not.

Only regular files and links travel. :mod:`.tree_walk` goes through the folder, and
:mod:`.ignore_rules` decides.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.adapters.sync.file_stats import MODE, SIZE, WIDTH, name_fault, stat_all
from orchestrator.adapters.sync.ignore_rules import IGNORE_FILE, Rules
from orchestrator.adapters.sync.skip_report import Skipped
from orchestrator.adapters.sync.tree_walk import Walk
from orchestrator.core.base.errors import UsageError

LARGE_FILE_BYTES = 100 * 1000 * 1000
LARGE_TOTAL_BYTES = 500 * 1000 * 1000
BIGGEST = 3
# A pointer of Git LFS is a text of three lines; by its specification less than 1024 bytes.
_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
_POINTER_BYTES, _MOST_READ = range(100, 1024), 500
_ATTRIBUTES, _ATTRIBUTE_BYTES = ".gitattributes", 65536
# Endings of .env files that are made to be shared.
_PATTERNS = ("example", "sample", "template", "dist", "defaults", "schema")


@dataclass(slots=True)
class FileList:
    """``names`` relative to ``folder``, and flattened rows of fields for each in ``stats``.

    ``left_out``: of the paths that were asked about, those that do not travel, with the rule.
    """

    folder: Path
    names: list[str] = field(default_factory=list)
    stats: array[int] = field(default_factory=lambda: array("q"))
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        return sum(self.stats[SIZE::WIDTH])


def list_tree(folder: Path, own: Path | None = None, needed: tuple[str, ...] = ()) -> FileList:
    """What travels of ``folder``, what not and by which rule, and what to warn about.

    Nothing in the folder ``own``, where the coordinator keeps its files, travels. ``needed`` are
    paths to look for among what is left out.

    Raises ``UsageError`` if the folder cannot be read or git refuses to list it.
    """
    try:
        walk = Walk(folder, Rules.of(folder, own), needed)
        walk.everything()
    except OSError as error:
        raise UsageError(
            "the folder cannot be read",
            id="OR-SYNC-002",
            where=error.filename or folder,
            why=error.strerror or str(error),
            remedy="check the path and its permissions",
        ) from error
    files = FileList(folder, walk.names, walk.stats, walk.account.summary())
    files.left_out = {path: rule for path in needed if (rule := walk.account.rule_of(path))}
    told = (*_home_warning(folder), *walk.notes, *_key_warnings(files), *_pointer_warnings(files))
    files.warnings = (*told, *_size_warnings(files))
    return files


def list_file(path: Path) -> FileList:
    """A single regular file as a list. Raises ``UsageError``."""
    try:
        names, stats = stat_all(path.parent, [path.name])
    except OSError:
        names, stats = [], array("q")
    if not names or name_fault(path.name, stats[MODE]):
        raise UsageError(
            "there is no such file",
            id="OR-SYNC-002",
            where=path,
            remedy="check the path and its permissions",
        )
    return FileList(path.parent, names, stats)


def _home_warning(folder: Path) -> list[str]:
    if not holds_home(folder):
        return []
    return [f"the home directory travels, all but private files: {folder}; --workdir names less"]


def holds_home(folder: Path) -> bool:
    """Whether the user's home directory is ``folder`` or lies in it."""
    try:
        return Path.home().resolve().is_relative_to(folder.resolve())
    except RuntimeError:  # this user has no home directory
        return False


def _size_warnings(files: FileList) -> list[str]:
    sizes = files.stats[SIZE::WIDTH]
    total = sum(sizes)
    biggest = sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True)[:BIGGEST]
    large = [index for index in biggest if sizes[index] > LARGE_FILE_BYTES]
    named = ", ".join(f"{files.names[i]} ({sizes[i] / 1e6:.0f} MB)" for i in large or biggest)
    remedy = f"leave out with {IGNORE_FILE} what the job does not read"
    if total > LARGE_TOTAL_BYTES:
        return [f"{total / 1e6:.0f} MB travel from {files.folder}, most of all {named}; {remedy}"]
    return [f"large files travel from {files.folder}: {named}; {remedy}"] if large else []


def _key_warnings(files: FileList) -> list[str]:
    """Programs read ``.env`` beside them, so it travels; what it holds is mostly secret."""
    keys = [name for name in files.names if ".env" in name and _is_settings(name)]
    if not keys:
        return []
    remedy = f"leave out with {IGNORE_FILE} what no rank reads"
    return [f"files that mostly hold keys and passwords travel: {_listed(keys)}; {remedy}"]


def _is_settings(name: str) -> bool:
    last = name.rpartition("/")[2]
    kind = last.removeprefix(".env")
    return kind != last and kind[:1] in ("", ".") and not kind.endswith(_PATTERNS)


def _pointer_warnings(files: FileList) -> list[str]:
    attributes = [name for name in files.names if name.endswith(_ATTRIBUTES)]
    read = (_beginning(files.folder / name, _ATTRIBUTE_BYTES) for name in attributes)
    if not any(b"filter=lfs" in text for text in read):
        return []
    sizes = zip(files.names, files.stats[SIZE::WIDTH], strict=True)
    small = [name for name, size in sizes if size in _POINTER_BYTES][:_MOST_READ]
    found = [n for n in small if _beginning(files.folder / n, len(_POINTER)) == _POINTER]
    if not found:
        return []
    remedy = "in place of their content, which git lfs pull brings"
    return [f"pointers of Git LFS travel, {remedy}: {_listed(found)}"]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - BIGGEST} more" if len(names) > BIGGEST else ""
    return ", ".join(names[:BIGGEST]) + more


def _beginning(path: Path, size: int) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(size)
    except OSError:
        return b""
