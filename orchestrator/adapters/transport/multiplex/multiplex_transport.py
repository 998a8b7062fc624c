"""SSH over a connection that another process of the user's holds, so that it stays for the next
command: the user's own ``ssh``, which does whatever its configuration demands, or our broker.

The holder is asked for channels over its socket, in the protocol of SSH itself: a command costs no
process here, and how it ended is exact, signals included.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Protocol

from orchestrator.adapters.transport.multiplex.multiplex_link import (
    Channel,
    ChannelRefused,
    MultiplexLink,
    NoMaster,
)
from orchestrator.adapters.transport.multiplex.multiplex_messages import string
from orchestrator.adapters.transport.ssh import failures
from orchestrator.adapters.transport.ssh.remote_command import (
    MAX_SESSIONS,
    REFUSED_PAUSE_S,
    RemoteProcess,
    await_opened,
    new_marker,
    remote_line,
    signal_number,
)
from orchestrator.adapters.transport.transport import (
    ChannelClosed,
    ConnectLimits,
    Process,
    Transport,
)
from orchestrator.core.base.command import Command
from orchestrator.core.base.outcome import Exited, Signalled
from orchestrator.core.model.inventory import SshEndpoint

Environment = Sequence[tuple[str, str]]


class ConnectionHold(Protocol):
    """A connection that is ours until ``release``; its sessions begin with ``environment``."""

    @property
    def endpoint(self) -> SshEndpoint: ...

    @property
    def environment(self) -> Environment: ...

    def release(self) -> None:
        """Let others have it; idempotent."""


class MultiplexTransport(Transport):
    """One kept connection; every command gets a channel of its own."""

    def __init__(
        self, node: str, held: ConnectionHold, link: MultiplexLink, limits: ConnectLimits
    ) -> None:
        self.node = node
        self._held = held
        self._link = link
        self._limits = limits
        self._sessions: set[RemoteProcess] = set()
        self._killing = asyncio.Lock()  # one session at a time is for killing
        self._watch = asyncio.create_task(self._watch_link())

    async def start(self, command: Command, *, timeout_s: float, has_input: bool = True) -> Process:
        marker = new_marker()
        line = remote_line(command, marker)
        if self._link.dead:
            raise ChannelClosed(self._link.dead)
        if len(self._sessions) >= MAX_SESSIONS:
            raise self._refused(f"{MAX_SESSIONS} commands run already")
        process = MultiplexProcess(self._link, self._killing, marker, self._sessions.discard)
        self._sessions.add(process)
        opening = asyncio.ensure_future(self._open(process, line, has_input=has_input))
        return await await_opened(opening, timeout_s, self.node, self._held.endpoint)

    async def _open(
        self, process: MultiplexProcess, line: bytes, *, has_input: bool
    ) -> MultiplexProcess:
        try:
            await process.open(line, self._held.environment)
        except ChannelRefused as error:
            self._sessions.discard(process)
            raise self._refused(str(error)) from error
        except NoMaster as error:
            self._sessions.discard(process)
            raise ChannelClosed(str(error)) from error
        if not has_input:
            with contextlib.suppress(ChannelClosed):  # it may be over by now
                await process.close_stdin()
        return process

    def _refused(self, why: str) -> Exception:
        return failures.refused_session(self.node, self._held.endpoint, why)

    def cut(self) -> bool:
        self._link.cut("we cut it")
        return True

    async def close(self) -> None:
        self._watch.cancel()
        self._link.cut("we closed it")
        self._held.release()

    async def _watch_link(self) -> None:
        """The holder asks for signs of life, but in its own time, and a user's ``ssh`` may not."""
        loop = asyncio.get_running_loop()
        pause_s, silence_s = self._limits.keepalive_interval_s, self._limits.silence_s
        while not self._link.dead:
            asked_at = loop.time()
            asked = self._link.probe()
            await asyncio.sleep(pause_s)
            while asked and self._link.heard_at < asked_at:
                if loop.time() - asked_at >= silence_s:
                    self._link.cut(f"no sign of life for {silence_s:g} s")
                    return
                await asyncio.sleep(pause_s)


class MultiplexProcess(RemoteProcess):
    """A command on a channel."""

    def __init__(
        self,
        link: MultiplexLink,
        killing: asyncio.Lock,
        marker: str,
        on_end: Callable[[RemoteProcess], None],
    ) -> None:
        super().__init__(marker, on_end)
        self._link = link
        self._killing = killing
        self._channel = _ProcessChannel(self)
        self._withheld = 0

    async def open(self, line: bytes, environment: Environment) -> None:
        """Start the command. Raises ``ChannelRefused`` and ``NoMaster``."""
        await self._link.open(self._channel)
        for name, value in environment:
            self._channel.request(b"env", string(os.fsencode(name)) + string(os.fsencode(value)))
        self._channel.request(b"exec", string(line))

    def on_output(self, data: bytes, *, stderr: bool) -> None:
        self._withheld += len(data)
        super().on_output(data, stderr=stderr)
        self._adjust_flow()

    def _send(self, data: bytes) -> None:
        self.pause_writing()
        self._channel.send(data)

    def _send_eof(self) -> None:
        self._channel.send_eof()

    def _adjust_flow(self) -> None:
        if self._killed or not (self.stdout.full or self.stderr.full):
            withheld, self._withheld = self._withheld, 0
            self._channel.grant(withheld)

    async def _send_kill(self) -> None:
        self._channel.request(b"signal", string(b"KILL"))  # enough for some servers
        if line := await self._kill_line():
            async with self._killing:
                await self._execute(line)

    async def _execute(self, line: bytes) -> None:
        """Run a line in a session of its own, as soon as the server grants one."""
        while True:
            errand = _Errand()
            try:
                await self._link.open(errand)
            except ChannelRefused:
                await asyncio.sleep(REFUSED_PAUSE_S)
            except NoMaster:
                return
            else:
                errand.request(b"exec", string(line))
                await errand.ended.wait()
                return

    def _close_channel(self) -> None:
        self._channel.close()


class _ProcessChannel(Channel):
    """Hands on to a process what happens."""

    def __init__(self, process: MultiplexProcess) -> None:
        super().__init__()
        self._process = process

    def on_output(self, data: bytes, *, stderr: bool) -> None:
        self._process.on_output(data, stderr=stderr)

    def on_sent(self) -> None:
        self._process.resume_writing()

    def on_eof(self) -> None:
        self._process.on_eof()

    def on_status(self, code: int) -> None:
        self._process.on_exit(Exited(code & 0xFF))

    def on_signal(self, name: str) -> None:
        self._process.on_exit(Signalled(signal_number(name)))

    def on_closed(self, reason: str, *, cut: bool) -> None:
        self._process.on_closed(reason, cut=cut)


class _Errand(Channel):
    """A command of which only the end matters."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    def on_output(self, data: bytes, *, stderr: bool) -> None:
        del stderr
        self.grant(len(data))

    def on_sent(self) -> None:
        pass

    def on_eof(self) -> None:
        pass

    def on_status(self, code: int) -> None:
        del code

    def on_signal(self, name: str) -> None:
        del name

    def on_closed(self, reason: str, *, cut: bool) -> None:
        del reason, cut
        self.ended.set()
