"""Unix sockets between processes of one user: where they lie, who may be at the other end.

A folder counts only if it belongs to this user and nobody else may enter it, a socket only if it is
this user's, and a peer only if the kernel says that this user runs it: both sides ask.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from orchestrator.adapters.store.atomic_files import make_private_dir
from orchestrator.adapters.store.layout import Layout

# Linux and macOS limit a socket's path to 104 bytes. ssh adds 17 while it makes one, and the names
# of ours have at most MAX_NAME_BYTES.
MAX_FOLDER_BYTES = 70
MAX_NAME_BYTES = 33
BACKLOG = 1024  # 256 connections that one command asks for at once, of several commands
_XUCRED = "=IIh"  # macOS: a version, the user, how many groups
_LOCAL_PEERCRED = 1


class NotOurs(OSError):
    """The socket, its folder or the process behind it is another user's, or others may open it."""


def sockets_folder(environ: Mapping[str, str]) -> Path:
    """Where the sockets are, made if need be. Raises ``UsageError`` if others could replace what is
    there, and ``OSError`` where nothing can be made.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    places = [Path(runtime, "orchestrate")] if runtime and Path(runtime).is_dir() else []
    places.append(Layout.from_environment(environ).home / "ssh")
    short = (place for place in places if len(os.fsencode(place)) <= MAX_FOLDER_BYTES)
    return make_private_dir(next(short, None) or _folder_for_long_homes())


def _folder_for_long_homes() -> Path:
    import tempfile  # most have no need of it

    return Path(tempfile.gettempdir(), f"orchestrate-{os.geteuid()}")


def require_closed_folder(folder: Path) -> None:
    """Raises :class:`NotOurs` unless the folder is this user's and closed to all others."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise NotOurs(f"{folder} is not a folder that only you can enter")


def lock_exclusively(path: Path) -> int | None:
    """A descriptor that holds the lock of ``path`` until it is closed, here and wherever it was
    inherited; None: another process holds it. Raises ``OSError``.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    taken = False
    try:
        taken = take_lock(lock)
        return lock if taken else None
    finally:
        if not taken:
            os.close(lock)


def take_lock(file: int) -> bool:
    """Whether no other process holds the lock of this open file; this descriptor then holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def listen_privately(path: Path) -> socket.socket:
    """A socket that listens at ``path``, for this user only; one that was left there is replaced,
    so that the caller holds a lock. Raises ``OSError`` where none can be made.
    """
    require_closed_folder(path.parent)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def connect_privately(path: Path, timeout_s: float) -> socket.socket:
    """A connection to the process of this user that listens at ``path``; its operations are bounded
    by ``timeout_s``. Raises ``OSError``: nobody listens, or :class:`NotOurs`.
    """
    require_closed_folder(path.parent)
    status = path.lstat()
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        raise NotOurs(f"{path} is not a socket of yours")
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        require_own_peer(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def require_own_peer(connection: socket.socket) -> None:
    """Raises :class:`NotOurs` unless a process of this user is at the other end."""
    if (uid := _peer_uid(connection)) != os.geteuid():
        raise NotOurs(f"the process behind the socket belongs to user id {uid}")


def _peer_uid(connection: socket.socket) -> int:
    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(struct.unpack("3i", told)[1])
    told = connection.getsockopt(0, _LOCAL_PEERCRED, 128)
    return int(struct.unpack_from(_XUCRED, told)[1])


def namespace_words() -> list[str]:
    """What tells this process's world from another one that shares its files: a process there may
    reach other hosts and see other files, or be of another machine.
    """
    words = [socket.gethostname()]
    for link in ("net", "mnt", "user", "pid"):
        with contextlib.suppress(OSError):
            words.append(str(Path(f"/proc/self/ns/{link}").readlink()))
    with contextlib.suppress(OSError):
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    return words


def awake_and_asleep_s() -> float:
    """Seconds of a clock that goes on while the machine sleeps, and that nobody sets."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(clock) if clock is not None else time.monotonic()
