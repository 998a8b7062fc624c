"""SSH by asyncssh: the default transport.

The library reports a missing exit status as a normal end, and by default it never notices a
half-open link; both are ``Lost`` here.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal

import asyncssh

from orchestrator.core.command import Command
from orchestrator.core.outcome import Exited, Signalled
from orchestrator.edges.transport import failures
from orchestrator.edges.transport.base import (
    DEFAULT_LIMIT_BYTES,
    ChannelClosed,
    Completed,
    Process,
    run_to_end,
)
from orchestrator.edges.transport.remote import RemoteProcess, new_marker, remote_line

CLOSE_TIMEOUT_S = 2.0
UNKNOWN_SIGNAL = 99


class AsyncSshTransport:
    """One SSH connection; every command gets a channel of its own."""

    def __init__(self, node: str, connection: asyncssh.SSHClientConnection) -> None:
        self.node = node
        self._connection = connection
        self._killing: set[asyncio.Future[None]] = set()

    async def start(self, command: Command, *, timeout_s: float) -> Process:
        marker = new_marker()
        line = remote_line(command, marker)
        opening = asyncio.ensure_future(self._open(line, marker))
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(opening)
        except BaseException:
            # The request may be on its way: whatever it starts must not outlive our interest in it.
            opening.add_done_callback(self._discard)
            raise

    async def _open(self, line: str, marker: str) -> AsyncSshProcess:
        process = AsyncSshProcess(self._connection, marker)
        try:
            await self._connection.create_session(
                lambda: process, line, request_pty=False, encoding=None
            )
        except asyncssh.ChannelOpenError as error:
            if self._connection.is_closed():
                raise ChannelClosed("the SSH connection is closed") from error
            raise failures.refused_session(self.node, error.reason) from error
        except (asyncssh.Error, OSError) as error:
            raise ChannelClosed(str(error) or "the SSH connection is lost") from error
        return process

    def _discard(self, opening: asyncio.Future[AsyncSshProcess]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            killing = asyncio.ensure_future(opening.result().kill())
            self._killing.add(killing)
            killing.add_done_callback(self._killing.discard)

    async def run(
        self,
        command: Command,
        *,
        stdin: bytes = b"",
        timeout_s: float,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
    ) -> Completed:
        return await run_to_end(
            self, command, stdin=stdin, timeout_s=timeout_s, limit_bytes=limit_bytes
        )

    async def close(self) -> None:
        await close_connection(self._connection)


async def close_connection(connection: asyncssh.SSHClientConnection) -> None:
    """Say goodbye, wait a little, cut."""
    connection.close()
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.wait_closed()
    except (TimeoutError, asyncssh.Error, OSError):
        connection.abort()


class AsyncSshProcess(RemoteProcess, asyncssh.SSHClientSession[bytes]):
    """A channel; asyncssh calls back with its data and its end."""

    def __init__(self, connection: asyncssh.SSHClientConnection, marker: str) -> None:
        super().__init__(marker)
        self._connection = connection
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
        self.on_closed(str(exc) if exc else "the channel closed without an exit status")

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
                await self._connection.create_session(
                    asyncssh.SSHClientSession, line, request_pty=False
                )

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._channel.abort()


def signal_number(name: str) -> int:
    """``KILL`` -> 9; a signal that this platform does not know is 99."""
    try:
        return signal.Signals[f"SIG{name.partition('@')[0]}"].value
    except KeyError:
        return UNKNOWN_SIGNAL
