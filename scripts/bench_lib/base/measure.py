"""Running commands and measuring them: wall time, and CPU time of the whole process tree."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from . import warm
from .errors import BenchError

CHUNK_BYTES = 1 << 16
MAX_OUTPUT_BYTES = 64 << 20
TAIL_BYTES = 2000
LEFTOVER_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to start; `env` is added to this process's environment.

    `merged`: standard error is part of the output. `home`: where a warm process may do its work.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    merged: bool = False
    home: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The output must show `count` different values of the pattern's first group."""

    pattern: re.Pattern[bytes]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Seconds.  `wall_s` ends when the last process has ended, `shown_s` when the expected output
    was complete; `cpu_s` is user and system time of the processes and all that they waited for, of
    which `user_s` is user time, and of what a warm process forked for them.
    """

    wall_s: float
    shown_s: float
    cpu_s: float
    user_s: float
    output: bytes


def measure(
    commands: Sequence[Command], *, timeout_s: float, expected: Expected | None = None
) -> Measurement:
    """Start all commands at once and wait for the last; no process of theirs remains.

    Raises BenchError when one fails, when `timeout_s` is over, or when what is expected is not in
    the output: a figure of something else is worse than none.
    """
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(tempfile.TemporaryFile())
        running = _Running(errors, expected)
        stack.callback(running.close)
        homes = {command.home for command in commands if command.home}
        before = [warm.spent_s(home) for home in homes]
        done = running.run(commands, timeout_s)
        after = [warm.spent_s(home) for home in homes]
        return replace(
            done,
            cpu_s=done.cpu_s + sum(a[0] - b[0] for a, b in zip(after, before, strict=True)),
            user_s=done.user_s + sum(a[1] - b[1] for a, b in zip(after, before, strict=True)),
        )


@dataclass(slots=True)
class _Child:
    """One started command; `ended_s` and `cpu_s` are known when it was reaped."""

    process: subprocess.Popen[bytes]
    pidfd: int
    ended_s: float | None = None
    cpu_s: float = 0.0
    user_s: float = 0.0


class _Running:
    def __init__(self, errors: IO[bytes], expected: Expected | None) -> None:
        self._errors = errors
        self._expected = expected
        self._selector = selectors.DefaultSelector()
        self._children: list[_Child] = []
        self._output = bytearray()
        self._searched = 0
        self._seen: set[bytes] = set()
        self._shown_s: float | None = None

    def run(self, commands: Sequence[Command], timeout_s: float) -> Measurement:
        started = time.monotonic()
        for command in commands:
            self._start(command)
        while any(child.ended_s is None for child in self._children):
            left = started + timeout_s - time.monotonic()
            if left <= 0:
                raise BenchError(f"{self._names()}: not done within {timeout_s:g} s{self._tail()}")
            self._serve(left)
        self._drain()
        ended = max(child.ended_s or 0.0 for child in self._children)
        self._check()
        return Measurement(
            wall_s=ended - started,
            shown_s=(self._shown_s or ended) - started,
            cpu_s=sum(child.cpu_s for child in self._children),
            user_s=sum(child.user_s for child in self._children),
            output=bytes(self._output),
        )

    def _start(self, command: Command) -> None:
        process = subprocess.Popen(
            list(command.argv),
            env={**os.environ, **command.env},
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if command.merged else self._errors,
            start_new_session=True,
        )
        child = _Child(process, os.pidfd_open(process.pid))
        self._children.append(child)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, None)
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)

    def _serve(self, wait_s: float) -> bool:
        """Handle what is ready; False when nothing was within `wait_s`."""
        ready = self._selector.select(wait_s)
        now = time.monotonic()
        for key, _ in ready:
            if isinstance(key.data, _Child):
                self._selector.unregister(key.fileobj)
                _reap(key.data, now)
            elif not self._read(key.fd, now):
                self._selector.unregister(key.fileobj)
        return bool(ready)

    def _read(self, descriptor: int, now: float) -> bool:
        chunk = os.read(descriptor, CHUNK_BYTES)
        self._output += chunk
        if len(self._output) > MAX_OUTPUT_BYTES:
            raise BenchError(f"{self._names()}: more than {MAX_OUTPUT_BYTES} bytes of output")
        if self._expected and self._shown_s is None:
            self._search(self._expected, now)
        return bool(chunk)

    def _search(self, expected: Expected, now: float) -> None:
        end = self._output.rfind(b"\n") + 1
        lines = bytes(self._output[self._searched : end])
        self._searched = max(end, self._searched)
        self._seen.update(match[1] for match in expected.pattern.finditer(lines))
        if len(self._seen) >= expected.count:
            self._shown_s = now

    def _drain(self) -> None:
        """The rest of the output; a process that was left behind may hold the pipe open."""
        while self._selector.get_map() and self._serve(0.0):
            continue

    def _check(self) -> None:
        for child in self._children:
            if child.process.returncode != 0:
                code = child.process.returncode
                raise BenchError(f"{_name(child)} ended with {code}{self._tail()}")
        if self._expected and self._shown_s is None:
            found, wanted = len(self._seen), self._expected.count
            raise BenchError(f"{self._names()}: {found} of {wanted} expected lines{self._tail()}")

    def _names(self) -> str:
        return ", ".join(dict.fromkeys(_name(child) for child in self._children))

    def _tail(self) -> str:
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - TAIL_BYTES))
        text = (self._errors.read() + bytes(self._output[-TAIL_BYTES:])).decode(errors="replace")
        return f":\n{text.strip()}" if text.strip() else ""

    def close(self) -> None:
        """Kill what still runs in the commands' sessions, and wait for it."""
        alive = [child for child in self._children if child.ended_s is None]
        for child in alive:
            os.killpg(child.process.pid, signal.SIGKILL)
        for child in alive:
            child.process.wait(LEFTOVER_S)
        for child in self._children:
            assert child.process.stdout is not None
            child.process.stdout.close()
            os.close(child.pidfd)
        self._selector.close()


def _reap(child: _Child, now: float) -> None:
    # Whom it left behind in its group; until it is waited for, nobody else can have its number.
    os.killpg(child.process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(child.process.pid, 0)
    child.process.returncode = os.waitstatus_to_exitcode(status)
    child.ended_s = now
    child.user_s = usage.ru_utime
    child.cpu_s = usage.ru_utime + usage.ru_stime


def _name(child: _Child) -> str:
    assert isinstance(child.process.args, list)
    return " ".join(str(word) for word in child.process.args[:6])
