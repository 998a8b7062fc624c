"""Logs of JSON lines that survive their writer: each line is on disk before the next step."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

MAX_LOG_BYTES = 8 << 20  # of a log only this much is read, from its end: decades of nights

Record = TypeVar("Record")


def append_line(path: Path, data: dict[str, Any]) -> None:
    """Add one line, on disk before this returns. Raises ``OSError``."""
    line = json.dumps(data, ensure_ascii=True, allow_nan=False).encode() + b"\n"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line  # the line before was torn
        if os.write(fd, line) < len(line):  # the next line begins behind what was torn
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(fd)
    finally:
        os.close(fd)


def read_log(path: Path, parse: Callable[[dict[str, Any]], Record]) -> list[Record]:
    """Every whole record, oldest first; lines that a crash tore, and objects that ``parse`` does
    not take, are left out.
    """
    found = []
    for data in _read_objects(path):
        try:
            found.append(parse(data))
        except (KeyError, TypeError, ValueError, RecursionError):
            continue
    return found


def _read_objects(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MAX_LOG_BYTES))
            content = file.read(MAX_LOG_BYTES)
    except FileNotFoundError:
        return
    for line in content.splitlines():
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(data, dict):
            yield data


@contextmanager
def holding(path: Path) -> Iterator[bool]:
    """Whether this process alone holds the lock at ``path`` while inside; the kernel frees it
    however the process ends. Programs that are started do not inherit it.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)
