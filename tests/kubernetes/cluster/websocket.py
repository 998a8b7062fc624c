"""The server's side of ``kubectl exec``: a WebSocket with channels (RFC 6455, v5.channel.k8s.io).

A frame's first byte is its channel: 0 standard input, 1 output, 2 error, 3 how the command ended,
255 that the channel named by the next byte is at its end.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress

PROTOCOL = "v5.channel.k8s.io"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
STDIN, STDOUT, STDERR, STATUS, CLOSE = 0, 1, 2, 3, 255
BINARY, CLOSING, PING, PONG = 2, 8, 9, 10


def accept_key(key: str) -> str:
    """The answer to a client's ``Sec-WebSocket-Key``."""
    return base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()


class Channels:
    """One connection after its handshake. ``frozen``: nothing passes, as if a cable were cut."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self.flowing = threading.Event()
        self.flowing.set()

    def send(self, channel: int, data: bytes) -> None:
        """Raises ``OSError`` when the client is gone."""
        self.flowing.wait()
        self._send_frame(BINARY, bytes([channel]) + data)

    def close(self) -> None:
        try:
            self._send_frame(CLOSING, struct.pack("!H", 1000))
        except OSError:
            return

    def cut(self) -> None:
        """End the connection without a word."""
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def received(self) -> Iterator[tuple[int, bytes]]:
        """Channel and data, until the client leaves."""
        while True:
            try:
                kind, payload = self._read_frame()
            except (OSError, EOFError):
                return
            self.flowing.wait()
            if kind == CLOSING:
                return
            if kind == PING:
                with suppress(OSError):
                    self._send_frame(PONG, payload)
            elif payload:
                yield payload[0], payload[1:]

    def _send_frame(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = struct.pack("!BB", 0x80 | kind, size)
        elif size < 65536:
            head = struct.pack("!BBH", 0x80 | kind, 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | kind, 127, size)
        with self._sending:
            self._connection.sendall(head + payload)

    def _read_frame(self) -> tuple[int, bytes]:
        """Of a message in several frames each is taken for itself: only its data matter."""
        first, second = self._read(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._read(8))
        mask = self._read(4) if second & 0x80 else b""
        payload = self._read(size)
        if mask:
            longer = (mask * (size // 4 + 1))[:size]
            payload = (int.from_bytes(payload) ^ int.from_bytes(longer)).to_bytes(size)
        return first & 0x0F, payload

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._connection.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data
