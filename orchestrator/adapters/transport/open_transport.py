"""From a declared node to an open transport."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from orchestrator.adapters.transport.handshakes import Handshakes
from orchestrator.adapters.transport.local_process import LocalTransport
from orchestrator.adapters.transport.target import Target, resolve
from orchestrator.adapters.transport.transport import ConnectLimits, Transport
from orchestrator.core.model.inventory import NodeSpec, TransportKind

if TYPE_CHECKING:
    from orchestrator.adapters.transport.async_ssh_links import Links


class _Shared:
    """What all transports of one event loop share."""

    def __init__(self, limits: ConnectLimits) -> None:
        self.handshakes = Handshakes(limits)
        self.links: Links | None = None


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()


async def open_transport(spec: NodeSpec, *, limits: ConnectLimits | None = None) -> Transport:
    """Connect to a node. All calls in one event loop share the first call's bounds on handshakes.

    Raises ``PreflightError`` (``OR-SSH-...``) and, for an ssh_config
    that cannot be read, ``UsageError``.
    """
    if spec.transport is TransportKind.LOCAL:
        return LocalTransport(spec.name)
    limits = limits or ConnectLimits()
    shared = _shared.setdefault(asyncio.get_running_loop(), _Shared(limits))
    target = await asyncio.to_thread(resolve, spec.ssh)
    if spec.transport is TransportKind.PARAMIKO:
        return await _open_paramiko(spec.name, target, limits, shared)
    return await _open_asyncssh(spec.name, target, limits, shared)


async def _open_asyncssh(
    node: str, target: Target, limits: ConnectLimits, shared: _Shared
) -> Transport:
    from orchestrator.adapters.transport.async_ssh import AsyncSshTransport
    from orchestrator.adapters.transport.async_ssh_links import Links

    shared.links = shared.links or Links(shared.handshakes)
    return AsyncSshTransport(node, target, await shared.links.open(target, limits))


async def _open_paramiko(
    node: str, target: Target, limits: ConnectLimits, shared: _Shared
) -> Transport:
    from orchestrator.adapters.transport.paramiko_connect import connect
    from orchestrator.adapters.transport.paramiko_ssh import ParamikoTransport

    chain = await shared.handshakes.perform(
        target, lambda: asyncio.to_thread(connect, target, limits)
    )
    return ParamikoTransport(node, target, chain, limits)
