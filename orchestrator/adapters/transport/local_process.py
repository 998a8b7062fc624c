"""The machine that orchestrate itself runs on, as a node: processes without a shell."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from orchestrator.adapters.transport.streams import ByteStream
from orchestrator.adapters.transport.subprocess_pipes import SubprocessPipes
from orchestrator.adapters.transport.transport import ChannelClosed, Process, Transport
from orchestrator.core.base.command import Command, Secret, reveal_secret
from orchestrator.core.base.outcome import Exited, Outcome, Signalled

NOT_FOUND = 127
NOT_EXECUTABLE = 126
# What decides which code a program loads, or which it calls. It stays behind here as it does over
# SSH, so that one machine behaves like many; whoever needs it lists it.
_STAYS = re.compile(
    r"LD_(PRELOAD|AUDIT|DEBUG.*)|(BASH_)?ENV|BASH_FUNC_.*|SHELLOPTS|BASHOPTS|PYTHON.*|PERL5?.*|RUBY.*|"
    r"NODE_OPTIONS|GIT_.*|SSH_ASKPASS"
)


class LocalTransport(Transport):
    """Starts each command in a session of its own: a terminal's Ctrl-C does not reach it."""

    def __init__(self, node: str) -> None:
        self.node = node
        self._running: set[LocalProcess] = set()
        self._closed = False

    async def start(self, command: Command, *, timeout_s: float, has_input: bool = True) -> Process:
        if any(isinstance(value, Secret) for value in command.env.values()):
            raise ValueError("a secret must travel over standard input, not the environment")
        if self._closed:
            raise ChannelClosed("the transport is closed")
        process = LocalProcess(self._running.discard)
        self._running.add(process)
        async with asyncio.timeout(timeout_s):
            await process.spawn(command)
        if not has_input:
            await process.close_stdin()
        return process

    def cut(self) -> bool:
        return False

    async def close(self) -> None:
        self._closed = True
        await asyncio.gather(*(process.kill() for process in self._running))


class LocalProcess(SubprocessPipes):
    """One child process; asyncio calls back with its output and its end."""

    def __init__(self, on_end: Callable[[LocalProcess], None]) -> None:
        super().__init__()
        self._on_end = on_end

    async def spawn(self, command: Command) -> None:
        """Start the child. One that cannot start ends at once, the way a shell reports it."""
        home = Path.home()
        inherited = {k: v for k, v in os.environ.items() if not _STAYS.fullmatch(k)}
        environment = inherited | {k: reveal_secret(v) for k, v in command.env.items()}
        try:
            await asyncio.get_running_loop().subprocess_exec(
                lambda: self,
                *command.argv,
                cwd=home / command.cwd if command.cwd else home,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        missing = isinstance(error, FileNotFoundError)
        self.stderr.feed(f"{error.strerror}: {error.filename}\n".encode(errors="replace"))
        self.on_exit(Exited(NOT_FOUND if missing else NOT_EXECUTABLE))
        self.stdout.finish()
        self.stderr.finish()
        self.on_closed("it could not start", cut=False)

    # asyncio's callbacks ----------------------------------------------------------------------

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.on_data(self._streams[fd], data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        del exc  # a broken input pipe is the reader's business
        if fd in self._streams:
            self._streams[fd].finish()

    def process_exited(self) -> None:
        code = self._transport.get_returncode() if self._transport else None
        assert code is not None
        outcome: Outcome = Exited(code) if code >= 0 else Signalled(-code)
        self.on_exit(outcome)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport:
            self._transport.close()
        self.on_closed(str(exc or "its pipes were closed"), cut=False)

    def on_closed(self, reason: str, *, cut: bool) -> None:
        super().on_closed(reason, cut=cut)
        self._on_end(self)

    # StreamedProcess' hooks -------------------------------------------------------------------

    @property
    def _streams(self) -> dict[int, ByteStream]:
        return {1: self.stdout, 2: self.stderr}

    async def _send_kill(self) -> None:
        if self._transport and self._transport.get_returncode() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._transport.get_pid(), signal.SIGKILL)

    def _close_channel(self) -> None:
        if self._transport:
            self._transport.close()
