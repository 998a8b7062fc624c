"""What travels over the socket of an ``ssh`` that shares its connection (ControlMaster).

Two protocols follow each other there. OpenSSH's PROTOCOL.mux (version 4) begins: a greeting, then
the request for proxy mode. From then on the socket carries the messages of SSH's own connection
protocol (RFC 4254), in the clear: ``uint32 length, byte 0, byte type, body``. The master translates
channel numbers, so that its clients need not know of each other. Pure.
"""

from __future__ import annotations

import struct
from enum import IntEnum

MUX_VERSION = 4
MAX_DATA_BYTES = 32 * 1024
MAX_MESSAGE_BYTES = 256 * 1024


class Mux(IntEnum):
    """Types of PROTOCOL.mux."""

    HELLO = 0x00000001
    ALIVE_CHECK = 0x10000004
    TERMINATE = 0x10000005
    PROXY = 0x1000000F
    OK = 0x80000001
    ALIVE = 0x80000005
    PROXY_READY = 0x8000000F


class Msg(IntEnum):
    """Types of RFC 4254 that concern a session."""

    CHANNEL_OPEN = 90
    CHANNEL_OPEN_CONFIRMATION = 91
    CHANNEL_OPEN_FAILURE = 92
    CHANNEL_WINDOW_ADJUST = 93
    CHANNEL_DATA = 94
    CHANNEL_EXTENDED_DATA = 95
    CHANNEL_EOF = 96
    CHANNEL_CLOSE = 97
    CHANNEL_REQUEST = 98
    CHANNEL_SUCCESS = 99
    CHANNEL_FAILURE = 100


class MalformedMessage(ValueError):
    """The other side does not speak the protocol."""


class Reader:
    """Takes a message apart. Raises :class:`MalformedMessage` where it ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise MalformedMessage("a message ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def uint32(self) -> int:
        return int.from_bytes(self.take(4))

    def boolean(self) -> bool:
        return self.take(1) != b"\0"

    def string(self) -> bytes:
        return self.take(self.uint32())

    def text(self) -> str:
        return self.string().decode(errors="replace")


class Unframer:
    """Cuts a stream into messages. Raises :class:`MalformedMessage` for one that is too long."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that ``data`` completes, without their length."""
        self._held += data
        complete = []
        at = 0
        while len(self._held) - at >= 4:
            size = int.from_bytes(self._held[at : at + 4])
            if size > MAX_MESSAGE_BYTES:
                raise MalformedMessage(f"a message of {size} bytes")
            if len(self._held) - at - 4 < size:
                break
            complete.append(bytes(self._held[at + 4 : at + 4 + size]))
            at += 4 + size
        del self._held[:at]
        return complete


def frame(message: bytes) -> bytes:
    """``message`` with its length before it."""
    return struct.pack(">I", len(message)) + message


def string(data: bytes) -> bytes:
    """Bytes as SSH writes them: the length, then they."""
    return frame(data)


def mux_request(kind: Mux, request: int) -> bytes:
    """A request of PROTOCOL.mux that has no further fields."""
    return frame(struct.pack(">II", kind, request))


def mux_hello() -> bytes:
    return frame(struct.pack(">II", Mux.HELLO, MUX_VERSION))


def packet(kind: int, body: bytes) -> bytes:
    """A message of RFC 4254, as the socket carries it."""
    return frame(b"\0" + bytes([kind]) + body)


def open_session(channel: int, window: int) -> bytes:
    """``window``: how many bytes may come before we ask for more."""
    numbers = struct.pack(">III", channel, window, MAX_DATA_BYTES)
    return packet(Msg.CHANNEL_OPEN, string(b"session") + numbers)


def channel_request(remote: int, kind: bytes, body: bytes = b"", *, reply: bool = False) -> bytes:
    """A request about the channel that the server calls ``remote``."""
    head = struct.pack(">I", remote) + string(kind) + bytes([reply])
    return packet(Msg.CHANNEL_REQUEST, head + body)


def channel_data(remote: int, data: bytes) -> bytes:
    return packet(Msg.CHANNEL_DATA, struct.pack(">I", remote) + string(data))


def channel_window(remote: int, more: int) -> bytes:
    return packet(Msg.CHANNEL_WINDOW_ADJUST, struct.pack(">II", remote, more))


def channel_eof(remote: int) -> bytes:
    return packet(Msg.CHANNEL_EOF, struct.pack(">I", remote))


def channel_close(remote: int) -> bytes:
    return packet(Msg.CHANNEL_CLOSE, struct.pack(">I", remote))
