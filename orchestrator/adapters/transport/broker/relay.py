"""One command at a broker's connection: messages of its channels pass in both directions.

The server's windows bound what the command may send, the command's windows what the server may;
nothing is held back here. Channel numbers of the command are translated, as the server's are
unique on a connection that serves one command at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.packet import SSHPacket, SSHPacketHandler

from orchestrator.adapters.transport.multiplex.multiplex_messages import (
    MalformedMessage,
    Msg,
    Reader,
    packet,
    string,
)

if TYPE_CHECKING:
    from asyncssh.logging import SSHLogger

SETTLE_S = 1.0
_FROM_COMMANDS = frozenset(range(Msg.CHANNEL_WINDOW_ADJUST, Msg.CHANNEL_REQUEST + 1))
_ENDINGS = frozenset({b"exit-status", b"exit-signal"})


class Relay:
    """The channels of one command. ``write`` gives a frame to it, ``lose`` gives it up."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        write: Callable[[bytes], None],
        lose: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._write = write
        self.lose = lose
        self._channels: dict[int, RelayedChannel] = {}  # by the server's number
        self._opening: set[RelayedChannel] = set()
        self._settled = asyncio.Event()
        self._left = False

    def take(self, message: bytes) -> None:
        """A message of the command. Raises ``MalformedMessage``."""
        reader = Reader(message)
        reader.take(1)
        kind = reader.take(1)[0]
        if kind == Msg.CHANNEL_OPEN:
            self._open(reader)
            return
        body = message[2:]
        channel = self._channels.get(reader.uint32())
        if kind not in _FROM_COMMANDS:
            raise MalformedMessage(f"a message of type {kind}")
        if channel is None or channel.closed_here:
            return  # the server closed it while this was on its way
        channel.closed_here = kind == Msg.CHANNEL_CLOSE
        self._connection.send_packet(kind, body)
        self._forget_if_over(channel)

    def _open(self, reader: Reader) -> None:
        kind = reader.string()
        number, window, most = reader.uint32(), reader.uint32(), reader.uint32()
        if kind != b"session":
            raise MalformedMessage(f"a channel of type {kind!r}")
        channel = RelayedChannel(self._connection, self, number)
        self._opening.add(channel)
        numbers = b"".join(value.to_bytes(4) for value in (channel.number, window, most))
        self._connection.send_packet(Msg.CHANNEL_OPEN, string(kind) + numbers)

    # What channels do -------------------------------------------------------------------------

    def give(self, kind: int, body: bytes) -> None:
        """A message for the command."""
        if not self._left:
            self._write(packet(kind, body))

    def on_opened(self, channel: RelayedChannel, remote: int) -> None:
        self._opening.discard(channel)
        self._channels[remote] = channel
        if self._left:
            self._close(remote, channel)

    def on_refused(self, channel: RelayedChannel) -> None:
        self._opening.discard(channel)
        self._look_whether_settled()

    def on_closed(self, channel: RelayedChannel) -> None:
        """The server closed it."""
        if self._left and not channel.closed_here:
            self._close(channel.remote, channel)
        self._forget_if_over(channel)

    def _close(self, remote: int, channel: RelayedChannel) -> None:
        channel.closed_here = True
        self._connection.send_packet(Msg.CHANNEL_CLOSE, remote.to_bytes(4))

    def _forget_if_over(self, channel: RelayedChannel) -> None:
        if channel.closed_here and channel.closed_there:
            self._channels.pop(channel.remote, None)
            self._look_whether_settled()

    def _look_whether_settled(self) -> None:
        if self._left and not self._opening and not self._channels:
            self._settled.set()

    # The end ----------------------------------------------------------------------------------

    async def leave(self) -> bool:
        """The command is gone. Whether the connection is as it was before: each of its channels
        is closed by both sides; one whose program had not ended may go on holding its place.
        """
        self._left = True
        channels = [*self._channels.items()]
        if self._opening or not all(channel.ended for _, channel in channels):
            return False
        for remote, channel in channels:
            if not channel.closed_here:
                self._close(remote, channel)
                self._forget_if_over(channel)
        self._look_whether_settled()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self._settled.wait()
        return self._settled.is_set() and not self._connection.is_closed()


class RelayedChannel(SSHPacketHandler):
    """A channel as asyncssh sees it: it hands over the messages that arrive for its number."""

    def __init__(self, connection: asyncssh.SSHClientConnection, relay: Relay, theirs: int) -> None:
        self._connection = connection
        self._relay = relay
        self._theirs = theirs.to_bytes(4)  # as the command calls it
        self.number = connection.add_channel(self)  # type: ignore[arg-type]
        self.remote = -1  # as the server calls it
        self.ended = False
        self.closed_here = False
        self.closed_there = False

    @property
    def logger(self) -> SSHLogger:
        return self._connection.logger

    def process_open_confirmation(
        self, send_chan: int, send_window: int, send_pktsize: int, packet: SSHPacket
    ) -> None:
        del packet
        self.remote = send_chan
        numbers = (send_chan, send_window, send_pktsize)
        self._give(Msg.CHANNEL_OPEN_CONFIRMATION, b"".join(n.to_bytes(4) for n in numbers))
        self._relay.on_opened(self, send_chan)

    def process_open_failure(self, code: int, reason: str, lang: str) -> None:
        words = string(reason.encode()) + string(lang.encode())
        self._give(Msg.CHANNEL_OPEN_FAILURE, code.to_bytes(4) + words)
        self._connection.remove_channel(self.number)
        self._relay.on_refused(self)

    def close(self) -> None:
        """The connection is about to be closed, and all that is on it."""

    def process_connection_close(self, exc: Exception | None) -> None:
        del exc
        self._relay.lose()

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> bool:
        del pktid
        body = packet.get_remaining_payload()
        if pkttype == Msg.CHANNEL_REQUEST and not self._is_for_command(body):
            self._connection.send_packet(Msg.CHANNEL_FAILURE, self.remote.to_bytes(4))
            return True
        self._give(pkttype, body)
        if pkttype == Msg.CHANNEL_CLOSE:
            self.closed_there = self.ended = True
            self._connection.remove_channel(self.number)
            self._relay.on_closed(self)
        return True

    def _is_for_command(self, body: bytes) -> bool:
        """Whether a request of the server's wants no answer; servers ask for signs of life."""
        try:
            reader = Reader(body)
            name, wants_answer = reader.string(), reader.boolean()
        except MalformedMessage as error:
            raise asyncssh.ProtocolError(str(error)) from None
        self.ended |= name in _ENDINGS
        return not wants_answer

    def _give(self, kind: int, body: bytes) -> None:
        self._relay.give(kind, self._theirs + body)


async def is_alive(connection: asyncssh.SSHClientConnection, within_s: float) -> bool:
    """Whether the server answers: it is asked for a kind of channel that none has."""
    if connection.is_closed():
        return False
    question = _Question(connection)
    zeros = bytes(8)
    try:
        kind = string(b"alive@orchestrate")
        connection.send_packet(Msg.CHANNEL_OPEN, kind + question.number.to_bytes(4) + zeros)
        async with asyncio.timeout(within_s):
            return await question.answered
    except TimeoutError:
        return False


class _Question(RelayedChannel):
    """``answered``: by the server (True), or by the end of the connection (False)."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self.answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._connection = connection
        self.number = connection.add_channel(self)  # type: ignore[arg-type]

    def process_open_confirmation(
        self, send_chan: int, send_window: int, send_pktsize: int, packet: SSHPacket
    ) -> None:
        del send_chan, send_window, send_pktsize, packet
        self._answer(alive=False)  # not what any server does

    def process_open_failure(self, code: int, reason: str, lang: str) -> None:
        del code, reason, lang
        self._connection.remove_channel(self.number)
        self._answer(alive=True)

    def process_connection_close(self, exc: Exception | None) -> None:
        del exc
        self._answer(alive=False)

    def _answer(self, *, alive: bool) -> None:
        if not self.answered.done():
            self.answered.set_result(alive)
