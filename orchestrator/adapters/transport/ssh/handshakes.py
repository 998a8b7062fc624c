"""Taking turns: how many handshakes run at once, and which failures are worth another try."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

import stamina

from orchestrator.adapters.transport.ssh.failures import HandshakeCut
from orchestrator.adapters.transport.transport import ConnectLimits

BACKOFF_INITIAL_S = 0.1
BACKOFF_MAX_S = 3.0

T = TypeVar("T")

# The last error tells the story; without a handler each retry would print a line.
logging.getLogger("stamina").addHandler(logging.NullHandler())


class Handshakes:
    """Bounds simultaneous handshakes: all together, and with one and the same server.

    sshd starts to drop unauthenticated connections at ten (MaxStartups 10:30:100).
    """

    def __init__(self, limits: ConnectLimits) -> None:
        self._limits = limits
        self._all = asyncio.Semaphore(limits.handshakes)
        self._per_server: dict[Hashable, asyncio.Semaphore] = {}

    async def perform(self, server: Hashable, connect: Callable[[], Awaitable[T]]) -> T:
        """``connect`` to ``server`` in turn; again, with a growing pause, if it cut that short."""
        async for attempt in stamina.retry_context(
            on=HandshakeCut,
            attempts=self._limits.attempts,
            timeout=self._limits.connect_timeout_s * 2,
            wait_initial=BACKOFF_INITIAL_S,
            wait_max=BACKOFF_MAX_S,
            wait_jitter=BACKOFF_INITIAL_S * 5,
        ):
            with attempt:
                async with self._turn_at(server), self._all:
                    return await connect()
        raise AssertionError("stamina tries at least once")

    def _turn_at(self, server: Hashable) -> asyncio.Semaphore:
        return self._per_server.setdefault(
            server, asyncio.Semaphore(self._limits.handshakes_per_host)
        )
