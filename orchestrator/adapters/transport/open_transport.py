"""From a declared node to an open transport."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from orchestrator.adapters.transport.choose_transport import choose_transport
from orchestrator.adapters.transport.kept_time import kept_seconds
from orchestrator.adapters.transport.transport import ConnectLimits, Transport
from orchestrator.core.model.inventory import NodeSpec, TransportKind

# What speaks SSH is imported by the nodes that need it: others start sooner.
if TYPE_CHECKING:
    from orchestrator.adapters.transport.asyncssh.async_ssh_links import Links
    from orchestrator.adapters.transport.broker.attach import BrokerClient
    from orchestrator.adapters.transport.ssh.target import Target


T = TypeVar("T")


class _Shared:
    """What all transports of one event loop share."""

    def __init__(self, limits: ConnectLimits) -> None:
        from orchestrator.adapters.transport.ssh.handshakes import Handshakes

        self.handshakes = Handshakes(limits)
        self.links: Links | None = None
        self.broker: BrokerClient | None = None


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = WeakKeyDictionary()


async def open_transport(spec: NodeSpec, *, limits: ConnectLimits | None = None) -> Transport:
    """Connect to a node. All calls in one event loop share the first call's bounds on handshakes.

    Raises ``PreflightError`` (``OR-SSH-...``) and, for an ssh_config that cannot be read,
    ``UsageError``.
    """
    return await TRANSPORTS[spec.transport](spec, limits or ConnectLimits())


async def _open_local(spec: NodeSpec, limits: ConnectLimits) -> Transport:  # noqa: ARG001 - none
    from orchestrator.adapters.transport.local_process import LocalTransport

    return LocalTransport(spec.name)


async def _open_asyncssh(spec: NodeSpec, limits: ConnectLimits) -> Transport:
    shared, target = await _prepare_target(spec, limits)
    if (kept := await _open_kept(spec, target, shared, limits)) is not None:
        return kept
    from orchestrator.adapters.transport.asyncssh.async_ssh import AsyncSshTransport
    from orchestrator.adapters.transport.asyncssh.async_ssh_links import Links

    shared.links = shared.links or Links(shared.handshakes)
    return AsyncSshTransport(spec.name, target, await shared.links.open(target, limits))


async def _open_kept(
    spec: NodeSpec, target: Target, shared: _Shared, limits: ConnectLimits
) -> Transport | None:
    """Over a connection that stays; None: it is not to stay, or no broker can be had."""
    keep_s = kept_seconds(os.environ)
    if not keep_s:
        return None
    from orchestrator.adapters.transport.broker.attach import BrokerClient, can_be_kept

    shared.broker = shared.broker or BrokerClient()
    if not can_be_kept(target):
        return None
    return await shared.broker.open(spec.name, target, limits, keep_s)


async def _open_paramiko(spec: NodeSpec, limits: ConnectLimits) -> Transport:
    from orchestrator.adapters.transport.paramiko.paramiko_connect import connect_chain
    from orchestrator.adapters.transport.paramiko.paramiko_ssh import ParamikoTransport

    shared, target = await _prepare_target(spec, limits)
    chain = await shared.handshakes.perform(
        target.server, lambda: asyncio.to_thread(connect_chain, target, limits)
    )
    return ParamikoTransport(spec.name, target, chain, limits)


async def _open_chosen(spec: NodeSpec, limits: ConnectLimits) -> Transport:
    async def choose() -> TransportKind:
        return (await asyncio.to_thread(choose_transport, spec))[0]

    kind = await _within(choose(), spec, limits.connect_timeout_s)
    return await TRANSPORTS[kind](spec, limits)


async def _open_openssh(spec: NodeSpec, limits: ConnectLimits) -> Transport:
    from orchestrator.adapters.transport.multiplex.multiplex_transport import MultiplexTransport
    from orchestrator.adapters.transport.openssh.jump_hosts import read_way
    from orchestrator.adapters.transport.openssh.kept_connections import hold_connection

    shared = _shared.setdefault(asyncio.get_running_loop(), _Shared(limits))
    way = await read_way(spec.ssh, limits.connect_timeout_s)
    held, link = await shared.handshakes.perform(
        way.settings.first_server, lambda: hold_connection(way, limits)
    )
    return MultiplexTransport(spec.name, held, link, limits)


async def _open_pod(spec: NodeSpec, limits: ConnectLimits) -> Transport:
    from orchestrator.adapters.transport.kubernetes.open_pod import open_pod

    return await open_pod(spec, limits)


async def _prepare_target(spec: NodeSpec, limits: ConnectLimits) -> tuple[_Shared, Target]:
    """What SSH connections of this event loop share, and where this one goes."""
    from orchestrator.adapters.transport.ssh.target import resolve_target

    shared = _shared.setdefault(asyncio.get_running_loop(), _Shared(limits))
    resolving = asyncio.to_thread(resolve_target, spec.ssh)
    return shared, await _within(resolving, spec, limits.connect_timeout_s)


async def _within(evaluating: Awaitable[T], spec: NodeSpec, timeout_s: float) -> T:
    """ssh_config may have commands run and names looked up."""
    try:
        async with asyncio.timeout(timeout_s):
            return await evaluating
    except TimeoutError:
        from orchestrator.adapters.transport.ssh.failures import slow_configuration

        raise slow_configuration(spec.ssh, spec.name, timeout_s) from None


Opener = Callable[[NodeSpec, ConnectLimits], Awaitable[Transport]]

# Every way to reach a node. A new one: a member of TransportKind, and its opener here; the
# inventory's schema has the members of TransportKind.
TRANSPORTS: Mapping[TransportKind, Opener] = {
    TransportKind.ASYNCSSH: _open_asyncssh,
    TransportKind.PARAMIKO: _open_paramiko,
    TransportKind.OPENSSH: _open_openssh,
    TransportKind.AUTO: _open_chosen,
    TransportKind.LOCAL: _open_local,
    TransportKind.KUBERNETES: _open_pod,
}
