"""The broker's process: forked from the first command that has use for it.

It has the lock and the listening socket that the command made, listens for commands of its user,
and ends when it holds no connection and serves no command, or when its socket is not there any more
and no command is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import socket
from pathlib import Path
from typing import Any

import asyncssh

from orchestrator.adapters.private_sockets import NotOurs, require_own_peer
from orchestrator.adapters.transport.broker.broker_messages import (
    ATTACHED,
    WAITING,
    WAITING_S,
    message,
    read_message,
    read_target,
    write_error,
)
from orchestrator.adapters.transport.broker.pool import Pool, PooledConnection
from orchestrator.adapters.transport.broker.relay import Relay
from orchestrator.adapters.transport.multiplex.multiplex_messages import MalformedMessage, Unframer
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import OrchestrateError

LEAST_LIFE_S = 30.0  # for the first command, and for one that follows another that failed
TITLE = b"orchestrate: kept connections"
VARIABLES = frozenset("PATH HOME LANG TMPDIR LOCALDOMAIN RES_OPTIONS".split())
FAMILIES = ("LC_",)
# More than the windows of all channels of a command together: a server that sends more than it was
# asked for is cut off.
MOST_UNREAD_BYTES = 16 * 1024 * 1024


class Broker:
    """All commands, and what they share."""

    def __init__(self, path: Path) -> None:
        self.pool = Pool()
        self.serving: set[object] = set()
        self.patient_until = 0.0
        self._path = path
        self._inode = path.lstat().st_ino
        self._is_to_end = False
        self._woken = asyncio.Event()

    async def serve(self, listener: socket.socket) -> None:
        """Until there is nothing to serve any more."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        server = await loop.create_unix_server(lambda: CommandSession(self), sock=listener)
        self.patient_until = loop.time() + LEAST_LIFE_S
        while not self._is_to_end:
            pause_s = self.pool.pause_s()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()
            self._woken.clear()
            self.pool.drop_over()
            if not self._is_found():
                self.patient_until = 0.0
                self.pool.close(None)
            if not self.serving and not self.pool.kept and loop.time() >= self.patient_until:
                break
        if self._is_found():
            # The lock before the socket: each control group that had a broker would leave one.
            self._path.with_name(f"{self._path.name}.lock").unlink(missing_ok=True)
            self._path.unlink()
        server.close()
        await self.pool.end()

    def end_when_idle(self) -> None:
        """Wait for no further command once nothing is held."""
        self.patient_until = 0.0
        self._woken.set()

    def _end(self) -> None:
        self._is_to_end = True
        self._woken.set()

    def _is_found(self) -> bool:
        try:
            return self._path.lstat().st_ino == self._inode
        except OSError:
            return False


class CommandSession(asyncio.Protocol):
    """A command's connection to the broker: one request, then perhaps the messages of channels."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._transport: asyncio.Transport | None = None
        self._unframer = Unframer()
        self._attaching: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._kept: PooledConnection | None = None
        self._relay: Relay | None = None
        self._closing: asyncio.Task[None] | None = None

    # asyncio's callbacks ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        try:
            require_own_peer(transport.get_extra_info("socket"))
        except NotOurs:
            transport.abort()
            return
        self._broker.serving.add(self)
        self._answer(WAITING)

    def data_received(self, data: bytes) -> None:
        try:
            for each in self._unframer.feed(data):
                if self._relay is not None:
                    self._relay.take(each)
                elif self._attaching is not None:
                    raise MalformedMessage("a second request")
                else:
                    self._take_request(read_message(each))
        except (MalformedMessage, KeyError, TypeError, ValueError, asyncssh.Error):
            self._lose()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._kept is not None and self._relay is not None:
            if self._closing is not None:
                self._closing.cancel()
            leaving = self._broker.pool.take_back(self._kept, self._relay.leave())
            self._leaving = asyncio.ensure_future(leaving)
            self._leaving.add_done_callback(lambda _: self._broker.serving.discard(self))
            return
        if self._attaching is not None:
            self._attaching.cancel()
        self._broker.serving.discard(self)

    # Requests ---------------------------------------------------------------------------------

    def _take_request(self, fields: dict[str, Any]) -> None:
        pool = self._broker.pool
        match fields.get("op"):
            case "attach":
                target, limits = read_target(fields["target"]), ConnectLimits(**fields["limits"])
                lending = pool.lend(str(fields["key"]), target, limits, float(fields["keep_s"]))
                self._attaching = asyncio.ensure_future(self._attach(lending))
            case "list":
                pool.drop_over()
                self._answer({"connections": [kept.record() for kept in pool.kept]})
            case "close":
                names = fields["names"]
                self._broker.end_when_idle()
                self._answer({"closed": pool.close(None if names is None else set(names))})
            case _:
                self._lose()

    async def _attach(self, lending: Any) -> None:
        task = asyncio.ensure_future(lending)
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=WAITING_S)
                if not task.done():
                    self._answer(WAITING)
            self._lend(task.result())
        except OrchestrateError as error:
            self._answer(write_error(error))
        except asyncio.CancelledError:
            task.cancel()
            task.add_done_callback(self._give_back)
            raise
        except BaseException:
            self._lose()
            raise

    def _lend(self, kept: PooledConnection) -> None:
        self._kept = kept
        self._relay = Relay(kept.connection, self._write, self._lose)
        self._closing = asyncio.ensure_future(kept.connection.wait_closed())
        self._closing.add_done_callback(lambda _: self._lose())
        self._answer(ATTACHED)

    def _give_back(self, lending: asyncio.Task[PooledConnection]) -> None:
        """The command went away while its connection was made."""
        if lending.cancelled() or lending.exception() is not None:
            return
        unused = Relay(lending.result().connection, self._write, self._lose)
        returning = self._broker.pool.take_back(lending.result(), unused.leave())
        self._leaving = asyncio.ensure_future(returning)

    def _answer(self, fields: dict[str, Any]) -> None:
        self._write(message(fields))

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MOST_UNREAD_BYTES:
            self._transport.abort()

    def _lose(self) -> None:
        """What is on its way to the command still arrives, then the socket's end."""
        if self._transport is not None:
            self._transport.close()


def serve(path: Path, listener: socket.socket) -> None:
    """Be the broker that listens at ``path``, until it has nothing to do any more."""
    _forget_command()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    asyncio.run(Broker(path).serve(listener))


def _forget_command() -> None:
    """This process goes on when the command that it was forked from has ended: its variables, its
    working directory and its words, which ``ps`` shows to all users, are none of ours.
    """
    for name in [n for n in os.environ if n not in VARIABLES and not n.startswith(FAMILIES)]:
        del os.environ[name]
    os.chdir("/")
    with contextlib.suppress(OSError, ValueError):
        _show_as(TITLE)


def _show_as(title: bytes) -> None:
    """Linux shows as a process's words what stands in its memory where they stood."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, see proc(5)
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, title, min(len(title), end - start - 1))
