"""The line protocol between `up` and the processes that it starts.

The child reads lines from stdin and answers on stdout.  It detaches by a fork whose first half
prints "pid N" (as the machine counts) and exits.  Until it has read "keep", the end of its input
means that whoever started it is gone, and it ends too.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .processes import Process, VirtualHostsError, identify, kill_all

PACKAGE = Path(__file__).resolve().parent
TOOL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ANSWER_SECONDS = 60.0


class Child:
    """The starter's side.  `abandon` (or the starter's death) ends a child that was not kept."""

    def __init__(
        self, module: str, first_line: str, prefix: Sequence[str] = (), label: Sequence[str] = ()
    ) -> None:
        """Start `module` behind the argv `prefix`; `label` tells a reader of `ps` whose it is."""
        self.process: Process | None = None
        self._unread = b""
        self._popen = subprocess.Popen(
            [*prefix, sys.executable, "-S", "-B", "-m", f"{PACKAGE.name}.{module}", *label],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": TOOL_PATH, "PYTHONPATH": str(PACKAGE.parent)},
            cwd="/",
            start_new_session=True,
        )
        self.say(first_line)

    def say(self, line: str) -> None:
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(line.encode() + b"\n")
            self._popen.stdin.flush()
        except BrokenPipeError as error:
            raise VirtualHostsError(f"a host ended while starting: {self._rest()}") from error

    def wait_detached(self) -> Process:
        """The detached process; its starter-side parent has ended and is reaped."""
        pid = int(self.expect("pid "))
        self.process = identify(pid)
        self._popen.wait(ANSWER_SECONDS)
        if self.process is None:
            raise VirtualHostsError(f"a host ended while starting: {self._rest()}")
        return self.process

    def expect(self, prefix: str) -> str:
        """The rest of the next line, which must begin with `prefix`."""
        line = self._read_line(time.monotonic() + ANSWER_SECONDS)
        if not line.startswith(prefix):
            raise VirtualHostsError(f"{line}\n{self._rest()}".strip() or "no answer")
        return line.removeprefix(prefix)

    def keep(self) -> None:
        self.say("keep")
        self._close()

    def abandon(self) -> None:
        """End the child and everything it started; harmless when it is gone already."""
        self._close()
        if self._popen.poll() is None and self.process is None:
            self._popen.kill()
            self._popen.wait()
        if self.process is not None:
            kill_all([self.process])

    def _close(self) -> None:
        for stream in (self._popen.stdin, self._popen.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                continue

    def _read_line(self, deadline: float) -> str:
        while b"\n" not in self._unread:
            chunk = self._read_chunk(deadline)
            if not chunk:
                break
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode(errors="replace")

    def _read_chunk(self, deadline: float) -> bytes:
        assert self._popen.stdout is not None
        descriptor = self._popen.stdout.fileno()
        left = max(0.0, deadline - time.monotonic())
        if not select.select([descriptor], [], [], left)[0]:
            raise VirtualHostsError(f"a host did not answer within {ANSWER_SECONDS:g} s")
        return os.read(descriptor, 65536)

    def _rest(self) -> str:
        """What the child still said, for an error message."""
        deadline = time.monotonic() + 1.0
        lines: list[str] = []
        while len(lines) < 50:
            try:
                line = self._read_line(deadline)
            except VirtualHostsError:
                break
            if not line:
                break
            lines.append(line)
        return "\n".join(lines)


def detach() -> None:
    """Child's side: go on in a forked process; the first half reports its pid and exits."""
    until_reported, reporting = os.pipe()
    pid = os.fork()
    if pid:
        report(f"pid {pid}")
        os._exit(0)
    os.close(reporting)
    os.read(until_reported, 1)  # end of file: "pid N" is on its way, whatever we say comes after
    os.close(until_reported)


def read_line() -> str:
    """One line of stdin, a byte at a time: nothing may stay buffered across a fork."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise EOFError("`up` is gone")
        line += byte
    return line[:-1].decode()


def await_word(word: str) -> None:
    line = read_line()
    if line != word:
        raise RuntimeError(f"expected {word!r}, got {line!r}")


def report(text: str) -> None:
    os.write(1, text.replace("\n", " ").encode() + b"\n")


def let_go() -> None:
    """After "keep": drop the pipes and every other open file."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, 1024)
