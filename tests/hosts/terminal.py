"""A terminal of one's own for `orchestrate`, with somebody who types, watches and closes it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.hosts.running import POLL_S, Desk, wait_until
from tests.time_limits import scaled, wait_for_exit

CTRL_C, CTRL_Q, CTRL_S, CTRL_Z = b"\x03", b"\x11", b"\x13", b"\x1a"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """One program on a terminal, as the leader of its session."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self._seen = bytearray()
        self._reading = threading.Event()
        self._reading.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def screen(self) -> str:
        """Everything that was written so far, without colours and cursor movements."""
        return _CONTROL.sub("", self._seen.decode(errors="replace")).replace("\r", "")

    def wait_for(self, text: str, within_s: float = 40.0) -> None:
        with suppress(AssertionError):
            wait_until(text, lambda: text in self.screen or not self._reader.is_alive(), within_s)
        assert text in self.screen, self.screen[-3000:]

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    def hang_up(self) -> None:
        """Close the window: whoever still uses the terminal gets SIGHUP, then EIO."""
        self._reading.clear()
        self._reader.join(scaled(5))
        os.close(self._master)
        self._master = -1

    @property
    def stopped(self) -> bool:
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def end(self, within_s: float = 60.0) -> int:
        """The exit code; its last words are on the screen."""
        code = wait_for_exit(self.process, within_s)
        self._reader.join(scaled(5))
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            wait_for_exit(self.process, 10)
        if self._master >= 0:
            self._reader.join(scaled(5))
            os.close(self._master)

    def _read(self) -> None:
        while self._reading.is_set():
            try:
                if select.select([self._master], [], [], POLL_S)[0]:
                    self._seen += os.read(self._master, 65536)
            except OSError:
                return


@contextmanager
def on_terminal(desk: Desk, *words: str) -> Iterator[Terminal]:
    """`orchestrate WORDS` on a new terminal."""
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "orchestrator", *words],
            cwd=desk.project,
            env=desk.environment() | {"TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
    finally:
        os.close(slave)
    terminal = Terminal(process, master)
    try:
        yield terminal
    finally:
        terminal.close()
