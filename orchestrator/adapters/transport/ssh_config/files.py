"""The files of ssh_config: which are read, and what an ``Include`` adds."""

from __future__ import annotations

import functools
import grp
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.transport.ssh_config.account import current_account
from orchestrator.adapters.transport.ssh_config.places import (
    expand_home,
    include_pattern,
    matching_paths,
    system_config,
    users_config,
)
from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.ssh_config.directives import Directive, parse_directives
from orchestrator.parsing.ssh_config.values import READERS

MAX_DEPTH = 16
MAX_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Block:
    """A ``Host`` or ``Match`` line, None at the beginning of a file, and what it governs: only what
    is about reaching a host, so that the blocks of other hosts cost next to nothing.
    """

    header: Directive | None
    body: tuple[Directive, ...]
    has_includes: bool


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One file's blocks. ``of_user``: it is the user's or was chosen, not the system's."""

    blocks: tuple[Block, ...]
    of_user: bool


def read_config(chosen: str | None) -> list[ConfigFile]:
    """What ``ssh`` reads, or ``ssh -F chosen``; ``none`` is no file at all.

    Raises :class:`UsageError` for a file that does not exist, that others may write to, or that
    holds a bad line.
    """
    if chosen is not None:
        return (
            [] if chosen.lower() == "none" else [_chosen_file(expand_home(chosen) or Path(chosen))]
        )
    users, system = users_config(), system_config()
    found = []
    if _is_readable(users):
        _check_permissions(users)
        found.append(ConfigFile(read_file(users), of_user=True))
    if _is_readable(system):
        found.append(ConfigFile(read_file(system), of_user=False))
    return found


def read_all(files: Iterable[ConfigFile], depth: int = 0) -> None:
    """Read everything that ``files`` include, too. Raises :class:`UsageError` for a bad line."""
    for file in files:
        for block in file.blocks:
            for directive in block.body if block.has_includes else ():
                if directive.keyword == "include":
                    read_all(
                        included_files(directive, of_user=file.of_user, depth=depth), depth + 1
                    )


def _chosen_file(path: Path) -> ConfigFile:
    if not path.is_file():
        raise UsageError(
            "the ssh_config file does not exist",
            id="OR-SSH-021",
            where=path,
            remedy="correct 'ssh_config:' in the inventory",
        )
    return ConfigFile(read_file(path), of_user=True)


def _is_readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def included_files(directive: Directive, *, of_user: bool, depth: int) -> Iterator[ConfigFile]:
    """The files that an ``Include`` names, each pattern in the order of names."""
    if depth >= MAX_DEPTH:
        raise UsageError(
            "Include goes too deep",
            id="OR-SSH-022",
            where=directive.place,
            remedy="break the circle of Includes",
        )
    for word in directive.words:
        if word.startswith("~") and not of_user:
            raise _no_home(directive)
        for path in matching_paths(include_pattern(word, of_user=of_user)):
            _check_permissions(path)
            yield ConfigFile(read_file(path), of_user)


def _no_home(directive: Directive) -> UsageError:
    what = "an Include with '~': a file of the system has no home directory"
    return UsageError(what, id="OR-SSH-023", where=directive.place)


def _check_permissions(path: Path) -> None:
    """Somebody else could have commands run here by writing to the file."""
    status = path.stat()
    owned = status.st_uid in {0, os.getuid()}
    if owned and not status.st_mode & stat.S_IWOTH and not _is_shared(status):
        return
    raise UsageError(
        "others may write to this ssh_config file",
        id="OR-SSH-026",
        where=path,
        why="ssh refuses it, too: it can name commands to run",
        remedy=f"chmod go-w {path}, and own it",
    )


def _is_shared(status: os.stat_result) -> bool:
    """Whether the group may write and has other members."""
    if not status.st_mode & stat.S_IWGRP:
        return False
    try:
        return bool(set(grp.getgrgid(status.st_gid).gr_mem) - {current_account().name})
    except KeyError:
        return True


def read_file(path: Path) -> tuple[Block, ...]:
    """The blocks of one file; parsed once for each version of it. Raises :class:`UsageError`."""
    try:
        status = path.stat()
        return _read_version(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UsageError(
            "the ssh_config file cannot be read",
            id="OR-SSH-021",
            where=path,
            why=error.strerror or str(error),
        ) from error


@functools.lru_cache(maxsize=256)
def _read_version(path: Path, mtime_ns: int, size: int) -> tuple[Block, ...]:
    del mtime_ns  # it makes the cache notice a change
    if size > MAX_BYTES:
        raise UsageError(f"larger than {MAX_BYTES >> 20} MiB", id="OR-SSH-021", where=path)
    text = path.read_bytes().decode(errors="surrogateescape")
    return tuple(_split_blocks(parse_directives(text, str(path))))


def _split_blocks(directives: Iterator[Directive]) -> Iterator[Block]:
    header: Directive | None = None
    body: list[Directive] = []
    for directive in directives:
        if directive.keyword in {"host", "match"}:
            yield _make_block(header, body)
            header, body = directive, []
        elif directive.keyword in READERS:
            body.append(directive)
    yield _make_block(header, body)


def _make_block(header: Directive | None, body: Sequence[Directive]) -> Block:
    return Block(header, tuple(body), any(line.keyword == "include" for line in body))
