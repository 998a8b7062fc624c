"""From a node's specification to a channel to its agent, and back to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

from orchestrator.adapters.agent_client.channel import AgentChannel, AgentEvent, Payload, Reply
from orchestrator.adapters.transport.open_transport import open_transport
from orchestrator.adapters.transport.transport import ConnectLimits, Transport
from orchestrator.core.model.inventory import NodeSpec


class Requests(Protocol):
    """Where one node's agent can be asked: a channel, or a link that asks again when its channel
    breaks, since every operation may be repeated.
    """

    @property
    def node(self) -> str:
        """The node's name in the inventory."""

    async def request(
        self,
        op: str,
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        timeout_s: float,
        payload: bytes | Payload = b"",
    ) -> Reply:
        """The agent's answer. Raises ``ChannelLost``, ``AgentError``, ``AgentTimeout``."""


class Channel(Requests, Protocol):
    """Requests to one node's agent, and the events that it sends by itself."""

    def events(self) -> AsyncIterator[AgentEvent]:
        """Everything unsolicited, in order. Raises ``ChannelLost`` at the end."""

    async def close(self) -> None:
        """Give everything back. Bounded."""


class AgentConnector(Protocol):
    """Opens a channel. Raises ``PreflightError``, ``ChannelLost`` or ``TimeoutError``."""

    async def __call__(
        self, spec: NodeSpec, *, limits: ConnectLimits, timeout_s: float
    ) -> Channel: ...


class OwnedChannel(AgentChannel):
    """An agent's channel that owns the transport it goes over."""

    transport: Transport

    def cut(self) -> bool:
        """Break the transport's link; see ``Transport.cut``."""
        return self.transport.cut()

    async def close(self) -> None:
        await super().close()
        await self.transport.close()


async def connect_agent(
    spec: NodeSpec,
    *,
    limits: ConnectLimits,
    timeout_s: float,
    offer: Mapping[str, object] | None = None,
) -> OwnedChannel:
    """Connect to the node and start the agent there, within ``timeout_s`` in all.

    ``offer``: of a snapshot; see ``AgentChannel.open``.
    """
    limits = replace(limits, connect_timeout_s=min(timeout_s, limits.connect_timeout_s))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    async with asyncio.timeout_at(deadline):
        transport = await open_transport(spec, limits=limits)
        try:
            left_s = deadline - loop.time()
            channel = await OwnedChannel.open(transport, spec, timeout_s=left_s, offer=offer)
        except BaseException:
            await transport.close()
            raise
    channel.transport = transport
    return channel
