"""The process that stays warm: it has imported the command, waits, and forks for who asks.

It holds no connection, no event loop, no thread and no secret: what a client sends is read in the
fork. It ends when nobody has asked for a while, and at once when its socket is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import platform
import select
import signal
import socket
import time
from pathlib import Path
from typing import NoReturn

from orchestrator.adapters.warm.client import socket_name
from orchestrator.adapters.warm.keeper import STALE, ForkedCommand, keep
from orchestrator.adapters.warm.likeness import describe_process
from orchestrator.adapters.warm.preloaded import MODULES
from orchestrator.adapters.warm.stamp import LoadedCode
from orchestrator.adapters.warm.start import LOCK

UNUSED_S = 600.0
LOOK_S = 20.0  # where the kernel does not say that the socket went
BACKLOG = 16
_CHANGES = fcntl.DN_DELETE | fcntl.DN_RENAME | fcntl.DN_MULTISHOT


def stay_warm(path: Path, unused_s: float = UNUSED_S) -> ForkedCommand:
    """Serve at the socket ``path`` until nobody asks any more. Returns in forks only, with the
    command to become.
    """
    code = LoadedCode()
    os.chdir("/")
    load()
    code.forget_unloaded()
    gc.collect()
    gc.freeze()  # what is shared with forks stays shared: no collection writes to it
    likeness = describe_process()
    if path.name != socket_name(likeness):
        os._exit(1)  # nobody would find it; as below
    return _Server(code, likeness, path, unused_s).serve()


def load() -> None:
    """Import what commands need."""
    for name in MODULES:
        with contextlib.suppress(ImportError):  # reported by the command that needs it
            importlib.import_module(name)
    # Libraries ask for the host's name when they are imported; it may be another one by then.
    vars(platform)["_uname_cache"] = None


class _Server:
    def __init__(self, code: LoadedCode, likeness: bytes, path: Path, unused_s: float) -> None:
        self._code = code
        self._likeness = likeness
        self._path = path
        self._unused_s = unused_s
        self._woken, wakes = socket.socketpair()
        self._wakes = wakes
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._inode = 0
        self._folder = -1

    def serve(self) -> ForkedCommand:
        """Raises ``OSError`` where no socket can be made: the lock then stays, so that this is not
        tried all the time.
        """
        self._listen()
        used = time.monotonic()
        poll = select.poll()
        for each in (self._listening, self._woken):
            poll.register(each, select.POLLIN)
        while True:
            left = used + self._unused_s - time.monotonic()
            if left <= 0 or not self._is_reachable():
                self.end()
            ready = {fd for fd, _ in poll.poll(min(left, LOOK_S) * 1000)}
            if self._woken.fileno() in ready:
                self._reap()
            if self._listening.fileno() in ready:
                used = time.monotonic()
                command = self._fork()
                if command is not None:
                    return command

    def end(self) -> NoReturn:
        """Leave nothing; a next one may start at once."""
        lock = self._path.with_suffix(".lock")
        with contextlib.suppress(OSError):
            if self._is_reachable():
                self._path.unlink()
            if lock.stat().st_ino == os.fstat(LOCK).st_ino:
                lock.unlink()
        os._exit(0)

    def _listen(self) -> None:
        """The socket appears where clients look for it once somebody is there."""
        for each in (self._woken, self._wakes, self._listening):
            each.setblocking(False)
        signal.signal(signal.SIGCHLD, _nothing)
        signal.signal(signal.SIGIO, _nothing)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        folder = self._folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        beside = f"/proc/self/fd/{folder}/{self._path.name}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        before = os.umask(0o177)
        self._listening.bind(beside)
        os.umask(before)
        self._inode = os.stat(beside).st_ino
        self._listening.listen(BACKLOG)
        os.rename(beside, self._path)
        with contextlib.suppress(OSError):  # not every file system tells
            fcntl.fcntl(folder, fcntl.F_NOTIFY, _CHANGES)

    def _is_reachable(self) -> bool:
        try:
            return os.stat(self._path).st_ino == self._inode
        except OSError:
            return False

    def _fork(self) -> ForkedCommand | None:
        """The command, in a fork of the keeper that is forked for a client; None here."""
        try:
            connection, _ = self._listening.accept()
        except OSError:
            return None
        if os.fork() != 0:
            connection.close()
            return None
        signal.set_wakeup_fd(-1)
        for each in (self._listening, self._woken, self._wakes):
            each.close()
        os.close(self._folder)
        os.close(LOCK)  # held by this process's parent alone, as long as that lives
        return keep(connection, self._likeness, self._code.is_current)

    def _reap(self) -> None:
        """Of keepers that ended; one that saw that the code is another one by now."""
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(64):
                pass
        stale = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            stale |= os.waitstatus_to_exitcode(status) == STALE
        if stale:
            self.end()


def _nothing(number: int, frame: object) -> None:
    """Its number arrives at the loop."""
    del number, frame
