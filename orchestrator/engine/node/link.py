"""The coordinator's hold on one node: a channel to its agent that comes back when it breaks.

Every agent operation is idempotent, so a request whose link broke is simply asked again on a
new link, until the node has been silent for too long.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.adapters.agent_client.channel import ChannelLost, Payload, Reply
from orchestrator.adapters.agent_client.connect_agent import AgentConnector, Channel, connect_agent
from orchestrator.adapters.transport.ssh.failures import Refused
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import OrchestrateError, PreflightError
from orchestrator.core.model.inventory import NodeSpec, TransportKind
from orchestrator.engine.support.clock import Clock

RETRY_AFTER_S = 0.5
MIN_PATIENCE_S = 0.1


class NodeGone(PreflightError):
    """Nothing more can be asked of the node. As it is: it does not let us in any more."""


class NodeSilent(NodeGone):
    """The link broke and did not come back in time."""

    def __init__(self, spec: NodeSpec, after_s: float, last: str) -> None:
        super().__init__(
            f"no sign of life for {after_s:.0f} s",
            id="OR-LINK-001",
            why=last,
            remedy=_look_after(spec),
        )


def _look_after(spec: NodeSpec) -> str:
    if spec.transport is TransportKind.LOCAL:
        return "look at the load and the memory of this machine"
    return f"check its power and network; then: {spec.ssh.command()}"


def _gone(error: PreflightError) -> NodeGone:
    what, where, why = error.what, error.where, error.why
    return NodeGone(what, id=error.id, where=where, why=why, remedy=error.remedy)


@dataclass(frozen=True, slots=True)
class Watch:
    """A watch and the channel that its events come through."""

    channel: Channel
    id: str


class NodeLink:
    """One node. ``opened`` counts how often the link was made.

    A link that broke may come back for ``silence_s``, counted from the break and for all requests
    together; after that every request fails at once. It is not tried again once it was refused.
    """

    def __init__(
        self,
        spec: NodeSpec,
        *,
        silence_s: float,
        limits: ConnectLimits,
        clock: Clock,
        dial: AgentConnector = connect_agent,
    ) -> None:
        self.spec = spec
        self.node = spec.name
        self.opened = 0
        self._silence_s = silence_s
        self._limits = limits
        self._clock = clock
        self._dial = dial
        self._channel: Channel | None = None
        self._broken_since: float | None = None
        self._refused: PreflightError | None = None
        self._opening = asyncio.Lock()

    @property
    def broken(self) -> bool:
        """Whether the link was there and is gone: nothing is heard of the node."""
        return self._broken_since is not None

    async def open(self, timeout_s: float) -> Channel:
        """The channel, made if there is none. Raises ``PreflightError``, ``TimeoutError``,
        ``ChannelLost``.
        """
        async with self._opening:
            if self._refused is not None:
                raise self._refused
            if self._channel is None:
                await self._connect(timeout_s)
            assert self._channel is not None
            return self._channel

    async def request(
        self,
        op: str,
        fields: Mapping[str, Any] | None = None,
        *,
        timeout_s: float,
        payload: bytes | Payload = b"",
    ) -> Reply:
        """Ask the agent, again after each broken link. Raises ``AgentError``, ``AgentTimeout``,
        :class:`NodeGone`, and as ``open`` does when there never was a link.
        """
        return (await self._ask(op, fields or {}, timeout_s, payload))[1]

    async def watch(self, fields: Mapping[str, Any], *, timeout_s: float) -> Watch:
        """Begin a watch; it belongs to the channel that it began on. Raises as ``request``."""
        channel, reply = await self._ask("watch", fields, timeout_s, b"")
        return Watch(channel, str(reply.fields.get("watch")))

    async def drop(self, broken: Channel) -> None:
        """Forget the link that ``broken`` belongs to, unless a newer one has replaced it."""
        if broken is self._channel:
            self._broken_since = self._clock.monotonic()
            await self._give_back()

    async def _ask(
        self, op: str, fields: Mapping[str, Any], timeout_s: float, payload: bytes | Payload
    ) -> tuple[Channel, Reply]:
        while True:
            channel = await self._reopen()
            try:
                reply = await channel.request(op, fields, timeout_s=timeout_s, payload=payload)
                return channel, reply
            except ChannelLost:
                await self.drop(channel)

    async def _reopen(self) -> Channel:
        """The channel, however often that must be tried. Raises :class:`NodeGone`."""
        if self._channel is not None and self._refused is None:
            return self._channel
        while True:
            left_s = max(self._patience_s(), MIN_PATIENCE_S)
            try:
                # Also while somebody else tries to open it: patience is counted from the break.
                async with asyncio.timeout(left_s):
                    return await self.open(left_s)
            except (NodeGone, Refused):
                raise
            except (ChannelLost, PreflightError, TimeoutError) as error:
                if self.opened == 0:
                    raise
                if self._patience_s() <= 0:
                    after_s = self._silence_s - self._patience_s()
                    raise NodeSilent(self.spec, after_s, str(error)) from error
            await asyncio.sleep(RETRY_AFTER_S)

    def _patience_s(self) -> float:
        """How much longer a broken link may stay broken."""
        if self._broken_since is None:
            return self._silence_s
        return self._silence_s - (self._clock.monotonic() - self._broken_since)

    async def _connect(self, timeout_s: float) -> None:
        try:
            self._channel = await self._dial(self.spec, limits=self._limits, timeout_s=timeout_s)
        except Refused as error:
            self._refused = error if self.opened == 0 else _gone(error)
            raise self._refused from error
        self._broken_since = None
        self.opened += 1

    async def _give_back(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def close(self) -> None:
        """Give everything back. Bounded, never raises."""
        with contextlib.suppress(OSError, OrchestrateError):
            await self._give_back()
