"""The files that ``ssh -G`` makes its answer of, and whether they are still what they were.

Some answers depend on more than files: a command that ``Match exec`` runs, an interface's address,
a variable, a name's lookup. For these there are no sources, and ``ssh`` is asked each time.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.adapters.transport.ssh_config.account import current_account
from orchestrator.adapters.transport.ssh_config.places import (
    include_pattern,
    matching_paths,
    system_config,
    users_config,
)
from orchestrator.core.base.errors import UsageError

MAX_FILES = 256
MAX_FILE_BYTES = 8 * 1024 * 1024
# The conditions of a ``Match`` that hold or do not by the question alone.
_BY_THE_QUESTION = frozenset(
    {*("all", "canonical", "final", "host", "localuser", "originalhost", "user")}
    | {*("command", "sessiontype", "tagged", "version")}
)
# What OpenSSH's glob, or a later version's Include, may read in another way than we do.
_READ_DIFFERENTLY = set("[]{}\\%")


class ConfigSources(NamedTuple):
    """``files``: each path and the digest of what lies there, empty for nothing; ``patterns``: each
    pattern of an ``Include`` and the files that it means.
    """

    files: Mapping[str, str]
    patterns: Mapping[str, Sequence[str]]

    @property
    def present(self) -> set[str]:
        """The files that exist."""
        return {path for path, digest in self.files.items() if digest}

    def are_unchanged(self) -> bool:
        """Whether ``ssh`` would read the same now."""
        return all(
            _digest(*_look_at(Path(path))) == digest for path, digest in self.files.items()
        ) and all(_matches(pattern) == list(named) for pattern, named in self.patterns.items())


def find_sources(chosen: str | None) -> ConfigSources | None:
    """What ``ssh`` reads, or ``ssh -F chosen``; None: that does not decide its answer alone."""
    if chosen is not None and chosen != "none" and not chosen.startswith("/"):
        return None
    files: dict[str, str] = {}
    patterns: dict[str, Sequence[str]] = {}
    waiting = list(_first_files(chosen))
    for path, of_user in waiting:  # grows
        content, status = _look_at(path)
        files[str(path)] = _digest(content, status)
        words = _included_words(content)
        if words is None or len(waiting) > MAX_FILES or _is_shared(status):
            return None
        for pattern in {str(include_pattern(word, of_user=of_user)) for word in words}:
            patterns[pattern] = _matches(pattern)
            named = ((Path(name), of_user) for name in patterns[pattern])
            waiting += (each for each in named if each not in waiting)
    return ConfigSources(files, patterns)


def _first_files(chosen: str | None) -> Iterator[tuple[Path, bool]]:
    """Each with whether it is the user's."""
    if chosen is None:
        yield users_config(), True
        yield system_config(), False
    elif chosen != "none":
        yield Path(chosen), True


def _look_at(path: Path) -> tuple[bytes, os.stat_result | None]:
    """A file's content and status; None: ``ssh`` finds nothing to read there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b"", None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        regular = stat.S_ISREG(status.st_mode)
        return file.read(MAX_FILE_BYTES + 1) if regular else b"", status


def _digest(content: bytes, status: os.stat_result | None) -> str:
    """Of the content, and of what else makes a file another one."""
    if status is None:
        return ""
    about = (status.st_dev, status.st_ino, status.st_mode, status.st_uid, status.st_gid)
    when = (status.st_mtime_ns, status.st_ctime_ns)
    return hashlib.sha256(f"{about} {when} ".encode() + content).hexdigest()


def _is_shared(status: os.stat_result | None) -> bool:
    """Whether others may write: who is in a group decides then whether ``ssh`` refuses the file."""
    return status is not None and bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _matches(pattern: str) -> list[str]:
    return [str(path) for path in matching_paths(Path(pattern))]


@functools.lru_cache(maxsize=MAX_FILES)
def _included_words(content: bytes) -> tuple[str, ...] | None:
    """The words of all ``Include`` lines of a file; None: more than files decides what it says."""
    # Imported only where ssh is asked.
    from orchestrator.parsing.ssh_config.directives import parse_directives

    if len(content) > MAX_FILE_BYTES:
        return None
    try:
        lines = list(parse_directives(content.decode(errors="surrogateescape"), ""))
    except UsageError:
        return None
    conditions = {criterion.name for line in lines for criterion in line.criteria}
    words = [word for line in lines if line.keyword == "include" for word in line.words]
    plain = conditions <= _BY_THE_QUESTION and all(map(_is_plain, words))
    return tuple(words) if plain and not any("$" in line.text for line in lines) else None


def _is_plain(word: str) -> bool:
    """Whether every version of ``ssh`` finds the same files by a word of ``Include`` as we do."""
    if _READ_DIFFERENTLY & set(word):
        return False
    own_home = os.environ.get("HOME") == current_account().home
    return word.startswith("/") or (own_home and (word[0] != "~" or word.startswith("~/")))
