"""From a declared node to an open transport: resolve, take turns, connect, retry."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakKeyDictionary

import stamina

from orchestrator.core.inventory import NodeSpec, TransportKind
from orchestrator.edges.transport.base import ConnectLimits, Transport
from orchestrator.edges.transport.failures import HandshakeCut
from orchestrator.edges.transport.local import LocalTransport
from orchestrator.edges.transport.target import Target, resolve

BACKOFF_INITIAL_S = 0.2
BACKOFF_MAX_S = 4.0


class Turns:
    """Bounds simultaneous handshakes: all together, and with one and the same sshd."""

    def __init__(self, limits: ConnectLimits) -> None:
        self._limits = limits
        self._all = asyncio.Semaphore(limits.handshakes)
        self._per_server: dict[tuple[str, int, Target | None], asyncio.Semaphore] = {}

    @contextlib.asynccontextmanager
    async def take(self, target: Target) -> AsyncIterator[None]:
        """Hold a turn for a handshake with ``target``."""
        server = (target.host, target.port, target.via)
        own = self._per_server.setdefault(
            server, asyncio.Semaphore(self._limits.handshakes_per_host)
        )
        async with own, self._all:
            yield


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


async def open_transport(spec: NodeSpec, *, limits: ConnectLimits | None = None) -> Transport:
    """Connect to a node. All calls in one event loop share the bounds of the first.

    Raises :class:`PreflightError` (``OR-SSH-...``) and, for an unreadable ssh_config,
    :class:`~orchestrator.core.errors.UsageError`.
    """
    if spec.transport is TransportKind.LOCAL:
        return LocalTransport(spec.name)
    limits = limits or ConnectLimits()
    turns = _turns.setdefault(asyncio.get_running_loop(), Turns(limits))
    target = await asyncio.to_thread(resolve, spec.ssh)
    async for attempt in stamina.retry_context(
        on=HandshakeCut,
        attempts=limits.attempts,
        timeout=limits.connect_timeout_s * 2,
        wait_initial=BACKOFF_INITIAL_S,
        wait_max=BACKOFF_MAX_S,
        wait_jitter=BACKOFF_INITIAL_S,
    ):
        with attempt:
            return await _connect(spec, target, limits, turns)
    raise AssertionError("stamina tries at least once")


async def _connect(
    spec: NodeSpec, target: Target, limits: ConnectLimits, turns: Turns
) -> Transport:
    from orchestrator.edges.transport.async_ssh import AsyncSshTransport
    from orchestrator.edges.transport.async_ssh_connect import connect

    async with turns.take(target):
        return AsyncSshTransport(spec.name, await connect(target, limits, via=None))
