"""Standard output and error of a process that must not depend on whoever reads them."""

from __future__ import annotations

import errno
import io
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAX_BACKLOG_BYTES = 64 << 20
SLICE_S = 0.1
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Outlet:
    """Writes for one reader, in a thread of its own, and swallows what the reader does not take.

    A reader that is slow (a pager, a terminal stopped by Ctrl-S) does not hold up the writer:
    beyond ``limit`` bytes of backlog whole writes are left out, until the outlet is ``patient``. A
    reader that is gone (EPIPE, EIO) is nobody's error: everything is dropped. So it is where a
    disk is full, which ``refusal`` tells.
    """

    def __init__(self, *, terminal: bool, limit: int = MAX_BACKLOG_BYTES) -> None:
        self.gone = False
        self.refusal = ""
        self.terminal = terminal
        self.patient = False
        self.left_out = 0
        self._limit = limit
        self._changed = threading.Condition()
        self._chunks: deque[tuple[int, bytes]] = deque()
        self._backlog = 0
        threading.Thread(target=self._pour, name="outlet", daemon=True).start()

    def take(self, fd: int, data: bytes) -> None:
        """Write ``data`` to descriptor ``fd`` some time: all of it or nothing."""
        with self._changed:
            if self.patient:
                while self._backlog >= self._limit and not self.gone:
                    self._changed.wait(SLICE_S)
            if self._backlog >= self._limit:
                self.left_out += data.count(b"\n")
            elif not self.gone:
                self._chunks.append((fd, data))
                self._backlog += len(data)
                self._changed.notify_all()

    def drain(self, timeout_s: float = math.inf) -> None:
        """Wait until everything is written, or nobody reads it any more."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._backlog and not self.gone and time.monotonic() < deadline:
                # In slices: a signal handler says that the reader is gone without notifying.
                self._changed.wait(SLICE_S)

    def _pour(self) -> None:
        while not self.gone:
            with self._changed:
                self._changed.wait_for(lambda: self._chunks)
                fd, chunk = self._chunks.popleft()
            try:
                _write_all(fd, chunk)
            except OSError as error:
                if error.errno in _FULL:
                    self.refusal = os.strerror(error.errno)
                self.gone = True
            with self._changed:
                self._backlog -= len(chunk)
                self._changed.notify_all()
        with self._changed:
            self._chunks.clear()
            self._changed.notify_all()


class _Face(io.BufferedIOBase):
    """A descriptor as a text stream wants it; what it is given goes through an outlet."""

    def __init__(self, fd: int, outlet: Outlet) -> None:
        self._fd = fd
        self._outlet = outlet

    @property
    def name(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        chunk = bytes(data)
        self._outlet.take(self._fd, chunk)
        return len(chunk)

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return self._outlet.terminal


class Outlets:
    """Those of standard output and error; one for both if they are the same file."""

    def __init__(self) -> None:
        self._by_file: dict[tuple[int, int, int], Outlet] = {}
        self._fds: dict[int, Outlet] = {}

    def replace(self, stream: TextIO) -> TextIO:
        """A stream that writes where ``stream`` does; itself if that is no file."""
        try:
            fd = stream.fileno()
            status = os.fstat(fd)
            stream.flush()
        except (OSError, ValueError):
            return stream
        file = (status.st_dev, status.st_ino, status.st_rdev)
        if file not in self._by_file:
            self._by_file[file] = Outlet(terminal=os.isatty(fd))
        outlet = self._fds[fd] = self._by_file[file]
        return io.TextIOWrapper(
            _Face(fd, outlet), encoding=stream.encoding, errors=stream.errors, write_through=True
        )

    def hang_up(self) -> None:
        """The terminal is closed. Safe in a signal handler: takes no lock."""
        for outlet in self._fds.values():
            outlet.gone = outlet.gone or outlet.terminal

    def abandon(self) -> None:
        """Do not wait for any reader. Safe in a signal handler: takes no lock."""
        for outlet in self._fds.values():
            outlet.gone = True

    def flush(self, timeout_s: float = math.inf) -> None:
        """Wait until everything is written or nobody reads it any more."""
        for outlet in self._fds.values():
            outlet.drain(timeout_s)

    def be_patient(self) -> int:
        """From now on a slow reader is waited for; returns how many lines were left out so far."""
        for outlet in self._fds.values():
            outlet.patient = True
        return sum(outlet.left_out for outlet in self._by_file.values() if not outlet.gone)

    def refusal(self) -> str:
        """What a full disk said to one of them; empty where all was taken."""
        return next((o.refusal for o in self._fds.values() if o.refusal), "")

    def close(self) -> None:
        """Write what is left; what others write later to where nobody reads must not fail."""
        self.flush()
        for fd, outlet in self._fds.items():
            if outlet.gone:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, fd)
                os.close(nowhere)


@contextmanager
def independent_output() -> Iterator[Outlets]:
    """While inside, ``sys.stdout`` and ``sys.stderr`` neither block nor fail."""
    outlets = Outlets()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(outlets.replace, before)
    try:
        yield outlets
    finally:
        sys.stdout, sys.stderr = before
        outlets.close()


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
