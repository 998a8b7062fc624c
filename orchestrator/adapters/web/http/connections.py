"""Connections with bounds: how many, and how long one may send nothing or read nothing.

What a client does not read waits in its connection, at most a message beyond 64 KiB; senders wait
for it there (uvicorn's flow control), and after ``STUCK_S`` the connection is cut off.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 512
HEAD_S = 15.0  # for a request to arrive, from the first byte of the connection or the last answer
STUCK_S = 30.0  # for a full buffer to be read


class BoundedConnection(H11Protocol):
    """A connection that ends when the other side neither asks nor reads."""

    _silent: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        self._await_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        answering = bool(self.cycle) and not self.cycle.response_complete
        if answering and self._silent is not None:
            self._silent.cancel()
            self._silent = None
        elif not answering and self._silent is None:
            self._await_request()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(STUCK_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._silent, self._stuck):
            if timer is not None:
                timer.cancel()

    def _await_request(self) -> None:
        self._silent = self.loop.call_later(HEAD_S, self.transport.abort)
