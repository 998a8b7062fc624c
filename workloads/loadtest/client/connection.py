"""A connection that carries one streamed request after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from .stream import Answer

# Connections read one after the other, so that one buffer serves all of them.
_BUFFER = memoryview(bytearray(256 * 1024))


class StreamConnection(asyncio.BufferedProtocol):
    """Speaks HTTP/1.1 to the server. ``on_over(self)`` follows each ``send``, exactly once."""

    __slots__ = ("_on_over", "_transport", "answer", "on_data", "request", "used")

    def __init__(
        self, on_over: Callable[[StreamConnection], None], on_data: Callable[[float], None]
    ) -> None:
        self._on_over, self.on_data = on_over, on_data
        self._transport: asyncio.Transport | None = None
        self.answer: Answer | None = None
        self.request = -1
        self.used = 0

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: int, content: bytes) -> None:
        """Send a request; only when the one before is over."""
        assert self._transport is not None
        self.request, self.answer = request, Answer()
        self.used += 1
        self._transport.write(content)

    def abort(self) -> None:
        """Close at once, without ``on_over``."""
        self.answer = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        now_s = monotonic()
        self.on_data(now_s)
        answer = self.answer
        if answer is None:
            self.abort()  # a server that speaks without being asked
            return
        answer.feed(bytes(_BUFFER[:nbytes]), now_s)
        if answer.over:
            self._end(answer)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        answer, self._transport = self.answer, None
        if answer is not None and not answer.over:
            answer.end_of_stream()
            if exc is not None and answer.failure:
                answer.detail = str(exc) or answer.detail
            self._end(answer)

    def _end(self, answer: Answer) -> None:
        if answer.closes and self._transport is not None:
            self._transport.close()
        self._on_over(self)
