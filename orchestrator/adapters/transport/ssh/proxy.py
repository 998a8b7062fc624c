"""A ProxyCommand: a program of the user's whose input and output carry the connection.

OpenSSH gives the line to the user's shell, behind ``exec``; so do we: variables, ``~``, ``$(...)``
and redirections mean what they mean there. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from dataclasses import dataclass

TAIL_BYTES = 4096
MAX_WORDS = 300
CHUNK_BYTES = 4096
END_TIMEOUT_S = 1.0
# A connection that ended is the proxy's end or follows it; so long it may take to know its code.
ENDING_S = 1.0


@dataclass(frozen=True, slots=True)
class ProxyEnding:
    """How it ended by itself: its exit code, below 0 for a signal, and the end of its stderr."""

    code: int
    words: str


class ProxyProcess:
    """One running ProxyCommand. ``sock`` is our end of its input and output."""

    def __init__(self, line: str) -> None:
        """Raises ``OSError`` when the user's shell cannot be started."""
        shell = os.environ.get("SHELL") or "/bin/sh"
        self.sock, theirs = socket.socketpair()
        self._tail = bytearray()
        try:
            with theirs:
                end = theirs.fileno()
                self._process = subprocess.Popen(
                    [shell, "-c", "exec " + line],
                    stdin=end,
                    stdout=end,
                    stderr=subprocess.PIPE,
                    start_new_session=True,  # a terminal's Ctrl-C is for us to handle
                )
        except OSError:
            self.sock.close()
            raise
        self._reader = threading.Thread(target=self._keep_tail, daemon=True)
        self._reader.start()

    def _keep_tail(self) -> None:
        """Read its stderr to the end, so that it never waits for us."""
        stderr = self._process.stderr
        assert stderr is not None
        with stderr, contextlib.suppress(OSError, ValueError):
            while data := os.read(stderr.fileno(), CHUNK_BYTES):
                self._tail += data
                del self._tail[:-TAIL_BYTES]

    def ending(self, within_s: float) -> ProxyEnding | None:
        """How it ended; None: it runs on."""
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(within_s)  # a child of it may hold its stderr
        return ProxyEnding(code, self.words)

    @property
    def words(self) -> str:
        """The end of what it wrote to stderr, in one line."""
        text = bytes(self._tail).decode(errors="replace")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[-MAX_WORDS:]

    def close(self) -> None:
        """End it: first it sees the end of its input, then signals. Bounded, idempotent."""
        self.sock.close()
        for number in (signal.SIGHUP, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_TIMEOUT_S)
