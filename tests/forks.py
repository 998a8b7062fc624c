"""Python processes that begin as copies of one which has imported the modules that they need.

Imports are half of what a short command costs, and nearly all of a short training; tests start
hundreds of both. What is started here is none the less a process of its own, with its folder,
environment, output and signals, that ends as any other. Variables that modules read when they are
imported change nothing.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

SERVER = Path(__file__).with_name("fork_server.py")
ENDS_WITHIN_S = 10.0


class ForkServer:
    """Starts programs that need ``modules``; begins with the first of them."""

    def __init__(self, *modules: str) -> None:
        self._modules = modules
        self._requests: socket.socket | None = None

    def start(self, argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Fork:
        """``python ARGV...`` with pipes for its output."""
        if self._requests is None:
            self._requests = self._begin()
        (out, its_out), (err, its_err), (report, its_report) = (os.pipe() for _ in range(3))
        program = {"argv": list(argv), "cwd": str(cwd), "env": dict(env)}
        line = json.dumps(program).encode() + b"\n"
        theirs = [its_out, its_err, its_report]
        sent = socket.send_fds(self._requests, [line], theirs)
        self._requests.sendall(line[sent:])
        for file in theirs:
            os.close(file)
        return Fork(argv, os.fdopen(out), os.fdopen(err), os.fdopen(report, "rb", buffering=0))

    def _begin(self) -> socket.socket:
        ours, its = socket.socketpair()
        with its:
            server = subprocess.Popen(
                [sys.executable, "-P", str(SERVER), f"{its.fileno()}", *self._modules],
                env={name: os.environ[name] for name in os.environ if name != "PYTHONPATH"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(its.fileno(),),
            )
        atexit.register(_end, ours, server)
        return ours


def _end(requests: socket.socket, server: subprocess.Popen[bytes]) -> None:
    """The server ends when nobody can ask for a program any more."""
    requests.close()
    with suppress(subprocess.TimeoutExpired):
        server.wait(ENDS_WITHIN_S)
        return
    server.kill()
    server.wait()


class Fork:
    """The part of :class:`subprocess.Popen` that tests use."""

    def __init__(
        self, argv: Sequence[str], stdout: IO[str], stderr: IO[str], report: IO[bytes]
    ) -> None:
        self.args = list(argv)
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self._report = report
        started = self._report.readline()
        assert started, "the fork server has ended; it says why on stderr"
        self.pid = int(started)
        self._said: dict[IO[str], str] = {}
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (stdout, stderr)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.stderr.close()
        self._learn(None)

    def poll(self) -> int | None:
        return self._learn(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Raises ``subprocess.TimeoutExpired``."""
        code = self._learn(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What is left of stdout and stderr until the end. Raises likewise; may be repeated."""
        end = None if timeout is None else time.monotonic() + timeout
        for reader in self._readers:
            if reader.ident is None:
                reader.start()
        for reader in self._readers:
            reader.join(None if end is None else max(end - time.monotonic(), 0.0))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        self.wait(None if end is None else max(end - time.monotonic(), 0.0))
        return self._said[self.stdout], self._said[self.stderr]

    def _read(self, stream: IO[str]) -> None:
        with stream:
            self._said[stream] = stream.read()

    def send_signal(self, number: int) -> None:
        """To a process that has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _learn(self, timeout: float | None) -> int | None:
        if self.returncode is None and self._is_over(timeout):
            self.returncode = int(self._report.readline())
            self._report.close()
        return self.returncode

    def _is_over(self, timeout: float | None) -> bool:
        """By poll(2): select(2) knows no descriptor beyond 1023."""
        poller = select.poll()
        poller.register(self._report, select.POLLIN)
        return bool(poller.poll(None if timeout is None else timeout * 1000))


# What `run` and `resume` import, which is nearly all that the other commands do.
COMMANDS = ForkServer(
    "orchestrator.cli.commands.jobs.run",
    "orchestrator.cli.commands.runs.resume",
    "orchestrator.cli.coordinate",
    "orchestrator.cli.load_request",
    "orchestrator.adapters.transport.asyncssh.async_ssh",
)
