"""A connection that another process of the user's holds, used by many channels at once."""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from orchestrator.adapters.transport.multiplex.multiplex_messages import (
    MAX_DATA_BYTES,
    MUX_VERSION,
    MalformedMessage,
    Msg,
    Mux,
    Reader,
    Unframer,
    channel_close,
    channel_data,
    channel_eof,
    channel_request,
    channel_window,
    mux_hello,
    mux_request,
    open_session,
)

WINDOW_BYTES = 1024 * 1024
ANSWER_S = 5.0
_REQUEST = 1


class NoMaster(ConnectionError):
    """No process holds a connection at this socket, or it speaks another protocol."""


class ChannelRefused(ConnectionError):
    """The server opens no channel."""


class Channel(ABC):
    """One session on a link. What happens to it arrives by the methods that subclasses have."""

    def __init__(self) -> None:
        self._link: MultiplexLink | None = None
        self._remote = -1
        self._sendable = 0
        self._pending = bytearray()
        self._eof_pending = False
        self._unread = 0
        self._closed_here = False

    # What subclasses do -----------------------------------------------------------------------

    @abstractmethod
    def on_output(self, data: bytes, *, stderr: bool) -> None:
        """Bytes came. ``grant`` says when more may come."""

    @abstractmethod
    def on_sent(self) -> None:
        """Everything that was given to ``send`` is on its way."""

    @abstractmethod
    def on_eof(self) -> None:
        """Both output streams ended."""

    @abstractmethod
    def on_status(self, code: int) -> None:
        """The command ended with an exit code."""

    @abstractmethod
    def on_signal(self, name: str) -> None:
        """A signal, named without ``SIG``, ended the command."""

    @abstractmethod
    def on_closed(self, reason: str, *, cut: bool) -> None:
        """The channel is gone, by agreement or ``cut`` with the link."""

    # What they may use ------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Queue input; ``on_sent`` follows. Raises ``BrokenPipeError``."""
        if self._link is None or self._closed_here:
            raise BrokenPipeError
        self._pending += data
        self._transmit()

    def send_eof(self) -> None:
        """Queue the end of input."""
        self._eof_pending = True
        self._transmit()

    def request(self, kind: bytes, body: bytes = b"", *, reply: bool = False) -> None:
        if self._link is not None and not self._closed_here:
            self._link.write(channel_request(self._remote, kind, body, reply=reply))

    def grant(self, more: int) -> None:
        """Let ``more`` bytes come, beyond what was granted before."""
        self._unread += more
        if self._link is not None and self._unread >= WINDOW_BYTES // 2:
            self._link.write(channel_window(self._remote, self._unread))
            self._unread = 0

    def close(self) -> None:
        """Tell the server that we are done with it; ``on_closed`` follows when it agrees."""
        if self._link is not None and not self._closed_here:
            self._closed_here = True
            self._link.write(channel_close(self._remote))

    # What the link does -----------------------------------------------------------------------

    def opened(self, link: MultiplexLink, remote: int, sendable: int) -> None:
        self._link, self._remote, self._sendable = link, remote, sendable

    def widened(self, more: int) -> None:
        self._sendable += more
        self._transmit()

    def dropped(self, reason: str, *, cut: bool) -> None:
        self.close()
        self._link = None
        self.on_closed(reason, cut=cut)

    def _transmit(self) -> None:
        link = self._link
        if link is None or self._closed_here:
            return
        while self._pending and self._sendable:
            size = min(len(self._pending), self._sendable, MAX_DATA_BYTES)
            link.write(channel_data(self._remote, bytes(self._pending[:size])))
            del self._pending[:size]
            self._sendable -= size
        if self._pending:
            return
        if self._eof_pending:
            self._eof_pending = False
            link.write(channel_eof(self._remote))
        self.on_sent()


class MultiplexLink(asyncio.Protocol):
    """The socket of a master in proxy mode. ``dead`` is empty while it lives, else the reason."""

    def __init__(self) -> None:
        self.dead = ""
        self.heard_at = 0.0
        self._transport: asyncio.Transport | None = None
        self._unframer = Unframer()
        self._numbers = itertools.count()
        self._channels: dict[int, Channel] = {}
        self._opening: dict[int, asyncio.Future[None]] = {}
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_message: Callable[[bytes], None] = self._on_greeting

    @classmethod
    async def connect(cls, path: Path) -> MultiplexLink:
        """Raises :class:`NoMaster`."""
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_unix_connection(cls, str(path))
        except OSError as error:
            raise NoMaster(error.strerror or str(error)) from error
        try:
            async with asyncio.timeout(ANSWER_S):
                await link.ready
        except TimeoutError:
            link.cut("no answer")
            raise NoMaster(f"no answer within {ANSWER_S:g} s") from None
        return link

    async def open(self, channel: Channel) -> None:
        """Raises :class:`ChannelRefused`, or :class:`NoMaster` once the link is dead."""
        if self.dead:
            raise NoMaster(self.dead)
        number = next(self._numbers)
        self._channels[number] = channel
        self._opening[number] = asyncio.get_running_loop().create_future()
        self.write(open_session(number, WINDOW_BYTES))
        try:
            await self._opening[number]
        finally:
            del self._opening[number]

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self.dead:
            self._transport.write(data)

    def probe(self) -> bool:
        """Ask the server for a sign of life, by a request that no server knows and each answers;
        False: no channel is open to ask on.
        """
        for number, channel in self._channels.items():
            if number not in self._opening:
                channel.request(b"keepalive@openssh.com", reply=True)
                return True
        return False

    def cut(self, reason: str) -> None:
        """Give the link up: every channel ends as lost."""
        self.dead = self.dead or reason
        if self._transport is not None:
            self._transport.abort()

    # asyncio's callbacks ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._greet()

    def data_received(self, data: bytes) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        try:
            for message in self._unframer.feed(data):
                self._on_message(message)
        except MalformedMessage as error:
            self.cut(f"the holder of the connection does not speak its protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self.dead = self.dead or str(exc or "the SSH connection is lost")
        if not self.ready.done():
            self.ready.set_exception(NoMaster(self.dead))
        for waiting in self._opening.values():
            if not waiting.done():
                waiting.set_exception(NoMaster(self.dead))
        for channel in list(self._channels.values()):
            channel.dropped(self.dead, cut=True)
        self._channels.clear()

    # Messages ---------------------------------------------------------------------------------

    def _greet(self) -> None:
        """Ask for the connection; ``_on_greeting`` gets the answers."""
        self.write(mux_hello())

    def _on_greeting(self, message: bytes) -> None:
        reader = Reader(message)
        kind = reader.uint32()
        if kind == Mux.HELLO and reader.uint32() == MUX_VERSION:
            self.write(mux_request(Mux.PROXY, _REQUEST))
        elif kind == Mux.PROXY_READY:
            self._become_ready()
        else:
            raise MalformedMessage(f"an answer of type {kind:#x}")

    def _become_ready(self) -> None:
        """Messages of RFC 4254 follow."""
        self._on_message = self._on_packet
        if not self.ready.done():
            self.ready.set_result(None)

    def _on_packet(self, message: bytes) -> None:
        reader = Reader(message)
        reader.take(1)  # the padding's length, always 0
        kind = reader.take(1)[0]
        if not Msg.CHANNEL_OPEN_CONFIRMATION <= kind <= Msg.CHANNEL_FAILURE:
            return  # about the connection: the master's business
        number = reader.uint32()
        if (channel := self._channels.get(number)) is None:
            return
        match kind:
            case Msg.CHANNEL_OPEN_CONFIRMATION:
                self._on_opened(number, channel, reader)
            case Msg.CHANNEL_OPEN_FAILURE:
                self._on_refused(number, reader)
            case Msg.CHANNEL_WINDOW_ADJUST:
                channel.widened(reader.uint32())
            case Msg.CHANNEL_DATA:
                channel.on_output(reader.string(), stderr=False)
            case Msg.CHANNEL_EXTENDED_DATA:
                reader.uint32()  # nothing but standard error exists
                channel.on_output(reader.string(), stderr=True)
            case Msg.CHANNEL_EOF:
                channel.on_eof()
            case Msg.CHANNEL_REQUEST:
                _on_request(channel, reader)
            case Msg.CHANNEL_CLOSE:
                del self._channels[number]
                channel.dropped("the channel closed without an exit status", cut=False)

    def _on_opened(self, number: int, channel: Channel, reader: Reader) -> None:
        channel.opened(self, reader.uint32(), reader.uint32())
        waiting = self._opening.get(number)
        if waiting is None or waiting.done():
            channel.close()  # nobody waits for it any more
        else:
            waiting.set_result(None)

    def _on_refused(self, number: int, reader: Reader) -> None:
        del self._channels[number]
        reader.uint32()  # a code; the words say more
        waiting = self._opening.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_exception(ChannelRefused(reader.text()))


def _on_request(channel: Channel, reader: Reader) -> None:
    kind = reader.string()
    reader.boolean()  # whether an answer is wanted: of these, never
    if kind == b"exit-status":
        channel.on_status(reader.uint32())
    elif kind == b"exit-signal":
        channel.on_signal(reader.text())
