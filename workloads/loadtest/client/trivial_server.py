#!/usr/bin/env python3
"""A server that streams answers without computing any: what a load client can do at most.

    (echo '{"port": 8000}'; sleep inf) | python trivial_server.py

Its first line of standard input has options as JSON: `port` (0 or absent: a free one),
`interval_ms` between tokens, `slots`: how many answers at a time (0: all). It prints its port, and
serves until its standard input ends. It answers `/v1/models`, and completions of both kinds with
`max_tokens` chunks, one a turn of its event loop and connection, as a server with a batch of
requests does. With an interval and a number of slots it is a server with a known capacity.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import deque

MODEL = "trivial"
MAX_REQUEST_BYTES = 16 * 1024 * 1024
MAX_TOKENS = 100_000
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,8})\r\n", re.IGNORECASE)
_TOKENS = re.compile(rb'"max_(?:completion_)?tokens": ?(\d{1,6})')


def _http_chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def _event(choice: bytes, kind: bytes) -> bytes:
    return _http_chunk(
        b'data: {"id":"0","object":"%b","created":0,"model":"%b","choices":[%b]}\n\n'
        % (kind, MODEL.encode(), choice)
    )


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ROLE = _event(
    b'{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}',
    b"chat.completion.chunk",
)
CHAT = _event(
    b'{"index":0,"delta":{"content":" word"},"finish_reason":null}', b"chat.completion.chunk"
)
TEXT = _event(b'{"index":0,"text":" word","finish_reason":null}', b"text_completion")
END = b'{"index":0,"delta":{},"text":"","finish_reason":"length"}'
MODELS = b'{"object":"list","data":[{"id":"%b","object":"model"}]}' % MODEL.encode()


def _last(tokens: int, chat: bool) -> bytes:
    """The end of an answer, with what it cost."""
    kind = b"chat.completion.chunk" if chat else b"text_completion"
    usage = (
        b'data: {"id":"0","object":"%b","created":0,"model":"%b","choices":[],"usage":'
        b'{"prompt_tokens":1,"completion_tokens":%d,"total_tokens":%d}}\n\n'
        % (kind, MODEL.encode(), tokens, tokens + 1)
    )
    return _event(END, kind) + _http_chunk(usage) + _http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Slots:
    """At most so many answers at a time; the others wait in order. 0 = no limit."""

    def __init__(self, count: int) -> None:
        self._free = count or sys.maxsize
        self._waiting: deque[Stream] = deque()

    def take(self, stream: Stream) -> None:
        if self._free:
            self._free -= 1
            stream.begin()
        else:
            self._waiting.append(stream)

    def give_back(self) -> None:
        """The next one begins, unless its client has gone."""
        while self._waiting:
            if self._waiting.popleft().begin():
                return
        self._free += 1


class Stream(asyncio.Protocol):
    """A connection: one request, one answer, and again."""

    def __init__(self, interval_s: float, slots: Slots) -> None:
        self._loop = asyncio.get_running_loop()
        self._interval_s, self._slots = interval_s, slots
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._chat = False
        self._tokens = self._left = 0
        self._serving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        if self._serving:
            self._serving = False
            self._slots.give_back()

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        end = received.find(b"\r\n\r\n")
        if end < 0 or len(received) > MAX_REQUEST_BYTES:
            return
        length = _LENGTH.search(received, 0, end + 2)
        body = received[end + 4 :]
        if len(body) < (int(length[1]) if length else 0):
            return
        self._received = b""
        self._answer(received[: received.find(b"\r\n")], body)

    def _answer(self, line: bytes, body: bytes) -> None:
        assert self._transport is not None
        if b"completions" not in line:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(MODELS), MODELS)
            )
            return
        asked = _TOKENS.search(body)
        self._chat = b"chat/" in line
        self._tokens = self._left = min(MAX_TOKENS, int(asked[1])) if asked else 16
        self._slots.take(self)

    def begin(self) -> bool:
        """Begin the answer; False when nobody waits for it any more."""
        if self._transport is None:
            return False
        self._serving = True
        self._transport.write(HEAD + ROLE if self._chat else HEAD)
        self._next_later()
        return True

    def _next_later(self) -> None:
        if self._interval_s:
            self._loop.call_later(self._interval_s, self._next)
        else:
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        if self._transport is None or not self._serving:
            return
        if not self._left:
            self._serving = False
            self._transport.write(_last(self._tokens, self._chat))
            self._slots.give_back()
            return
        self._left -= 1
        self._transport.write(CHAT if self._chat else TEXT)
        self._next_later()


async def serve(port: int, interval_s: float, slots: int) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    places = Slots(slots)
    server = await loop.create_server(
        lambda: Stream(interval_s, places), "127.0.0.1", port, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    options = json.loads(sys.stdin.readline())
    port, slots = options.get("port", 0), options.get("slots", 0)
    asyncio.run(serve(port, options.get("interval_ms", 0.0) / 1e3, slots))


if __name__ == "__main__":
    main()
