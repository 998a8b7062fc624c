"""A small HTTP/1.1 server on asyncio: requests with a length, whole answers, server-sent events."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

MAX_HEAD_BYTES = 32 * 1024
MAX_BODY_BYTES = 32 * 1024 * 1024
READ_S = 60.0  # for a request to be complete once it began
IDLE_S = 600.0  # for the next request of a connection
MAX_BACKLOG_BYTES = 4 * 1024 * 1024  # events that a client has not taken

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """A request, whole."""

    method: str
    path: str
    body: bytes


class Malformed(ValueError):
    """Bytes that are no request that this server reads; ``status`` is what is answered."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Reply:
    """Where an answer goes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.keep_alive = True

    @property
    def gone(self) -> bool:
        """Whether nobody reads: the client left, or does not take what is sent."""
        transport = self._writer.transport
        if transport.is_closing() or self._reader.at_eof():
            return True
        return transport.get_write_buffer_size() > MAX_BACKLOG_BYTES

    def whole(self, status: int, body: bytes, kind: str = JSON) -> None:
        """Send a whole answer."""
        self._writer.write(_head(status, kind, f"Content-Length: {len(body)}") + body)

    def begin_events(self) -> None:
        """Open a stream of events, which ends with :meth:`end_events`."""
        self._writer.write(
            _head(200, "text/event-stream", "Cache-Control: no-cache\r\nTransfer-Encoding: chunked")
        )

    def event(self, data: bytes) -> None:
        """Send events now."""
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end_events(self) -> None:
        """The end of a stream of events."""
        self._writer.write(b"0\r\n\r\n")

    def abort(self) -> None:
        """Drop the connection: an answer that broke off must not look complete."""
        self.keep_alive = False
        self._writer.transport.abort()


Handler = Callable[[HttpRequest, Reply], Awaitable[None]]


async def serve_connection(
    handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer the requests of one connection, one after the other."""
    reply = Reply(reader, writer)
    try:
        while reply.keep_alive:
            request = await _read_request(reader, reply)
            if request is None:
                break
            await handler(request, reply)
            await writer.drain()
    except Malformed as error:
        reply.whole(error.status, str(error).encode(), "text/plain")
    except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
        pass  # the client left
    finally:
        writer.close()
        with suppress(ConnectionError, TimeoutError):
            await writer.wait_closed()


async def _read_request(reader: asyncio.StreamReader, reply: Reply) -> HttpRequest | None:
    """The next request; None if there is no further one."""
    async with asyncio.timeout(IDLE_S):
        first = await reader.read(1)
    if not first:
        return None
    async with asyncio.timeout(READ_S):
        try:
            head = first + await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise Malformed("the head of the request is too long", 431) from None
        method, path, fields = _parse_head(head)
        if fields.get("connection", "").lower() == "close":
            reply.keep_alive = False
        body = await reader.readexactly(_body_bytes(fields))
    return HttpRequest(method=method, path=path.partition("?")[0], body=body)


def _parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Malformed("the request line is not one of HTTP/1.1", 400)
    pairs = (line.partition(":") for line in lines)
    return words[0], words[1], {name.strip().lower(): value.strip() for name, _, value in pairs}


def _body_bytes(fields: dict[str, str]) -> int:
    if "transfer-encoding" in fields:
        raise Malformed("a body without Content-Length is not read", 411)
    text = fields.get("content-length", "0")
    if not text.isascii() or not text.isdigit():
        raise Malformed("Content-Length is no number", 400)
    if int(text) > MAX_BODY_BYTES:
        raise Malformed(f"the body has more than {MAX_BODY_BYTES} bytes", 413)
    return int(text)


def _head(status: int, kind: str, more: str) -> bytes:
    phrase = http.HTTPStatus(status).phrase
    return f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {kind}\r\n{more}\r\n\r\n".encode()
