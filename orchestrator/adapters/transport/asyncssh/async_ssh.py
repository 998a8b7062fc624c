"""SSH by asyncssh: the default transport.

The library reports a missing exit status as a normal end, and by default it never notices a
half-open link; both are ``Lost`` here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import cast

import asyncssh

from orchestrator.adapters.transport.asyncssh.async_ssh_links import SshLink
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
from orchestrator.adapters.transport.ssh.target import Target
from orchestrator.adapters.transport.transport import ChannelClosed, Process, Transport
from orchestrator.core.base.command import Command
from orchestrator.core.base.outcome import Exited, Signalled


class AsyncSshTransport(Transport):
    """One SSH connection; every command gets a channel of its own."""

    def __init__(self, node: str, target: Target, link: SshLink) -> None:
        self.node = node
        self._target = target
        self._link = link
        self._connection = link.connection
        self._env: dict[bytes | str, bytes | str] = {
            os.fsencode(name): os.fsencode(value) for name, value in target.env
        }
        self._sessions: set[RemoteProcess] = set()
        self._killing = asyncio.Lock()  # one session at a time is for killing

    async def start(self, command: Command, *, timeout_s: float, has_input: bool = True) -> Process:
        marker = new_marker()
        line = remote_line(command, marker)
        if len(self._sessions) >= MAX_SESSIONS:
            raise failures.refused_session(
                self.node, self._target.endpoint, f"{MAX_SESSIONS} commands run already"
            )
        opening = asyncio.ensure_future(self._open(line, marker, has_input=has_input))
        return await await_opened(opening, timeout_s, self.node, self._target.endpoint)

    async def _open(self, line: bytes, marker: str, *, has_input: bool) -> AsyncSshProcess:
        process = AsyncSshProcess(self._connection, self._killing, marker, self._sessions.discard)
        self._sessions.add(process)
        try:
            # asyncssh sends bytes as they are; only its annotation knows nothing but str.
            await self._connection.create_session(
                lambda: process,
                cast("str", line),
                env=self._env,
                request_pty=False,
                encoding=None,
            )
        except asyncssh.ChannelOpenError as error:
            self._sessions.discard(process)
            if self._connection.is_closed():
                raise ChannelClosed("the SSH connection is closed") from error
            raise failures.refused_session(
                self.node, self._target.endpoint, error.reason
            ) from error
        except (asyncssh.Error, OSError) as error:
            self._sessions.discard(process)
            raise ChannelClosed(str(error) or "the SSH connection is lost") from error
        if not has_input:
            with contextlib.suppress(ChannelClosed):  # it may be over by now
                await process.close_stdin()
        return process

    def cut(self) -> bool:
        self._connection.abort()
        return True

    async def close(self) -> None:
        await self._link.close()


class AsyncSshProcess(RemoteProcess, asyncssh.SSHClientSession[bytes]):
    """A channel; asyncssh calls back with its data and its end."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        killing: asyncio.Lock,
        marker: str,
        on_end: Callable[[RemoteProcess], None],
    ) -> None:
        super().__init__(marker, on_end)
        self._connection = connection
        self._killing = killing
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._paused = False

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.on_output(data, stderr=datatype is not None)

    def eof_received(self) -> bool:
        self.on_eof()
        return True  # keep our side open: the process may still read

    def exit_status_received(self, status: int) -> None:
        self.on_exit(Exited(status))

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        del core_dumped, msg, lang
        self.on_exit(Signalled(signal_number(signal)))

    def connection_lost(self, exc: Exception | None) -> None:
        cut = exc is not None or self._connection.is_closed()
        self.on_closed(str(exc or "the channel closed without an exit status"), cut=cut)

    def _send(self, data: bytes) -> None:
        assert self._channel is not None
        self._channel.write(data)

    def _send_eof(self) -> None:
        assert self._channel is not None
        self._channel.write_eof()

    def _adjust_flow(self) -> None:
        should_pause = not self._killed and (self.stdout.full or self.stderr.full)
        if self._channel is None or should_pause == self._paused or self._closed.is_set():
            return
        self._paused = should_pause
        if should_pause:
            self._channel.pause_reading()
        else:
            self._channel.resume_reading()

    async def _send_kill(self) -> None:
        assert self._channel is not None
        with contextlib.suppress(OSError, asyncssh.Error):
            self._channel.send_signal("KILL")  # enough for some servers
            if line := await self._kill_line():
                async with self._killing:
                    await self._execute(line.decode())

    async def _execute(self, line: str) -> None:
        """Run a line in a session of its own, as soon as the server grants one."""
        while True:
            try:
                channel, _ = await self._connection.create_session(
                    asyncssh.SSHClientSession, line, request_pty=False
                )
            except asyncssh.ChannelOpenError:
                if self._connection.is_closed():
                    return
                await asyncio.sleep(REFUSED_PAUSE_S)
            else:
                await channel.wait_closed()
                return

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.abort()
