"""Starting a process that stays warm, in the background of a command that had to do without."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orchestrator
from orchestrator.adapters.private_sockets import lock_exclusively
from orchestrator.adapters.store.atomic_files import make_private_dir
from orchestrator.adapters.warm.client import folder, socket_name
from orchestrator.adapters.warm.likeness import describe_process, variables_read_at_start
from orchestrator.core.base.errors import UsageError

# Logins, containers and limits that differ have one each; no more than these at once.
MOST = 4
LOCK = 3  # the descriptor that the new process has its lock as
# One that ended by itself took its lock with it. One that left it was killed, or cannot start.
AGAIN_AFTER_S = 60.0
PROGRAM = (
    "import sys; at = sys.argv[1]; at in sys.path or sys.path.insert(0, at); "
    "from orchestrator.__main__ import stay_warm; stay_warm()"
)


def start_warm_process(likeness: bytes) -> None:
    """Start the process for commands like this one was at its start, if nobody else does. It
    imports what it needs while nobody waits for it. Raises nothing: every command does without.
    """
    with contextlib.suppress(OSError, UsageError):
        # A limit that this command raised for itself, say, is not to be that of others.
        if likeness == describe_process():
            _start_unless_there(likeness)


def _start_unless_there(likeness: bytes) -> None:
    where = folder(os.environb)
    if where is None:
        return
    place = make_private_dir(Path(os.fsdecode(where)).absolute())
    if len(list(place.glob("*.lock"))) >= MOST and not _forget_dead(place):
        return
    path = place / f"{socket_name(likeness)}.lock"
    with _locked(path) as lock:
        if lock is None:
            return
        status = os.fstat(lock)
        if status.st_size == 0 or time.time() - status.st_mtime > AGAIN_AFTER_S:
            os.pwrite(lock, b"started\n", 0)
            os.utime(lock)
            _spawn(lock, path.with_suffix(""))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """None: a process has it, or just gave it up."""
    lock = lock_exclusively(path)
    if lock is None:
        yield None
        return
    try:
        same = path.exists() and path.stat().st_ino == os.fstat(lock).st_ino
        yield lock if same else None
    finally:
        os.close(lock)


def _forget_dead(place: Path) -> bool:
    """Remove what processes left that were killed a while ago; whether there was any."""
    found = False
    for path in place.glob("*.lock"):
        with _locked(path) as lock:
            if lock is not None and time.time() - os.fstat(lock).st_mtime > AGAIN_AFTER_S:
                path.with_suffix("").unlink(missing_ok=True)
                path.unlink()
                found = True
    return found


def _spawn(lock: int, path: Path) -> None:
    """With nothing of this command's but what a start of Python reads: no secret, no descriptor."""
    root = str(Path(orchestrator.__file__).parents[1])
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-c", PROGRAM, root, str(path)],
        variables_read_at_start(dict(os.environb)),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, 0, 2),
            (os.POSIX_SPAWN_DUP2, lock, LOCK),
            *((os.POSIX_SPAWN_CLOSE, each) for each in _handed_down() if each > LOCK),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )


def _handed_down() -> list[int]:
    """What this command was started with, such as the lock of `flock` or a pipe that somebody reads
    to its end: a process that stays may have none of it.
    """
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the one that listed them
            if os.get_inheritable(number):
                found.append(number)
    return found
