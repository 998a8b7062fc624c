"""Taking turns: how many handshakes run at once, and which failures are worth another try."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from orchestrator.adapters.transport.ssh.failures import HandshakeCut
from orchestrator.adapters.transport.transport import ConnectLimits

BACKOFF_INITIAL_S = 0.1
BACKOFF_MAX_S = 3.0
JITTER_S = 0.5

T = TypeVar("T")


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
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.connect_timeout_s * 2
        attempt = 1
        while True:
            try:
                async with self._turn_at(server), self._all:
                    return await connect()
            except HandshakeCut:
                pause_s = _pause_after(attempt)
                if attempt >= self._limits.attempts or loop.time() + pause_s >= deadline:
                    raise
            await asyncio.sleep(pause_s)
            attempt += 1

    def _turn_at(self, server: Hashable) -> asyncio.Semaphore:
        return self._per_server.setdefault(
            server, asyncio.Semaphore(self._limits.handshakes_per_host)
        )


def _pause_after(attempt: int) -> float:
    """Seconds: doubled each time, and not the same for all who were cut at once."""
    grown_s = min(BACKOFF_INITIAL_S * 2.0 ** (attempt - 1), BACKOFF_MAX_S)
    return grown_s + random.uniform(0, JITTER_S)
