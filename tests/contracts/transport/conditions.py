"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Callable
from pathlib import Path

from tests.time_limits import Deadline

POLL_S = 0.01


async def until(condition: Callable[[], bool], *, what: str, timeout_s: float = 10.0) -> None:
    """Returns as soon as ``condition`` holds. Raises ``AssertionError`` naming ``what``."""
    deadline = Deadline(timeout_s)
    while not condition():
        assert not deadline.passed, f"not within {deadline}: {what}"
        await asyncio.sleep(POLL_S)


def is_listening(address: Path) -> bool:
    """Whether somebody does at a Unix socket, which is there a moment before."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(address)) == 0


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


async def until_ended(pid: int) -> None:
    """Returns when the process is gone."""
    await until(lambda: not is_alive(pid), what=f"the end of process {pid}")


async def until_not_running(word: str) -> None:
    """Returns when no process has ``word`` in its command line."""
    await until(lambda: not is_running(word), what=f"the end of {word!r}")


_numbers = itertools.count()


def recognisable_duration() -> str:
    """About a minute, as an argument for ``sleep`` that no other process on this machine has."""
    return f"60.{os.getpid():07d}{next(_numbers):05d}"


def is_running(word: str) -> bool:
    """Whether a process has ``word`` in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word.encode() in path.read_bytes():
                return True
        except (FileNotFoundError, ProcessLookupError):
            continue
    return False
