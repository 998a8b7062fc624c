"""One command on many nodes at once, with as little work per node as possible."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from orchestrator.adapters.transport.open_transport import open_transport
from orchestrator.adapters.transport.transport import (
    CHUNK_BYTES,
    ChannelClosed,
    ConnectLimits,
    NotStarted,
    Process,
    Transport,
)
from orchestrator.core.base.command import Command
from orchestrator.core.base.errors import OrchestrateError, UsageError
from orchestrator.core.base.outcome import Lost, Outcome, TimedOut
from orchestrator.core.model.inventory import NodeSpec


class Audience(Protocol):
    """Who hears what the nodes say. Called on the event loop; must be quick."""

    def output(self, node: str, stream: str, chunk: bytes) -> None:
        """Raw bytes; ``stream`` is ``out`` or ``err``."""

    def ended(self, node: str, outcome: Outcome) -> None:
        """The command ended; called once for each node that was reached."""

    def unreachable(self, node: str, why: str) -> None:
        """The command was not started; called once for each node that was not reached."""

    def not_started(self, node: str, outcome: Outcome | None, why: str) -> None:
        """The login shell did not run the command; it ended with ``outcome``, if it did."""


@dataclass(slots=True)
class GatheredOutput:
    """What nodes print on stdout, at most ``most`` bytes of each; nothing for one that is not
    reached.
    """

    most: int
    said: dict[str, bytes] = field(default_factory=dict)

    def output(self, node: str, stream: str, chunk: bytes) -> None:
        if stream == "out":
            self.said[node] = (self.said.get(node, b"") + chunk)[: self.most]

    def ended(self, node: str, outcome: Outcome) -> None:
        pass

    def unreachable(self, node: str, why: str) -> None:
        pass

    def not_started(self, node: str, outcome: Outcome | None, why: str) -> None:
        pass


class _Limits(NamedTuple):
    timeout_s: float
    width: int
    connect: ConnectLimits


class FanOut:
    """``width`` bounds how many nodes are worked on at the same time."""

    def __init__(
        self, command: Command, *, timeout_s: float, connect_timeout_s: float, width: int
    ) -> None:
        self._command = command
        connect = ConnectLimits(connect_timeout_s=connect_timeout_s)
        self._limits = _Limits(timeout_s=timeout_s, width=width, connect=connect)

    async def run(self, nodes: Sequence[NodeSpec], audience: Audience) -> None:
        """Every node gets exactly one ``ended``, ``unreachable`` or ``not_started``."""
        turn = asyncio.Semaphore(self._limits.width)
        async with asyncio.TaskGroup() as group:
            for spec in nodes:
                group.create_task(self._one(spec, audience, turn))

    async def _one(self, spec: NodeSpec, audience: Audience, turn: asyncio.Semaphore) -> None:
        async with turn:
            try:
                transport = await open_transport(spec, limits=self._limits.connect)
            except OrchestrateError as error:
                audience.unreachable(spec.name, _in_one_line(error))
                return
            try:
                await self._perform(transport, audience)
            finally:
                await transport.close()

    async def _perform(self, transport: Transport, audience: Audience) -> None:
        limit_s = self._limits.connect.connect_timeout_s
        try:
            process = await transport.start(self._command, timeout_s=limit_s, has_input=False)
        except NotStarted as error:
            audience.not_started(transport.node, error.outcome, f"{error.what}; {error.why}")
            return
        except (ChannelClosed, TimeoutError, OrchestrateError) as error:
            audience.unreachable(transport.node, str(error) or "the command did not start in time")
            return
        try:
            audience.ended(transport.node, await self._follow(process, transport.node, audience))
        finally:
            await process.kill()

    async def _follow(self, process: Process, node: str, audience: Audience) -> Outcome:
        limit = self._limits.timeout_s

        async def drain(stream: str, read: Callable[[int], Awaitable[bytes]]) -> None:
            while chunk := await read(CHUNK_BYTES):
                audience.output(node, stream, chunk)

        try:
            async with asyncio.timeout(limit):
                await asyncio.gather(
                    drain("out", process.read_stdout), drain("err", process.read_stderr)
                )
                return await process.wait(limit)
        except TimeoutError:
            return TimedOut(limit)
        except ChannelClosed as error:
            return Lost(str(error))


def _in_one_line(error: OrchestrateError) -> str:
    why = f"{error.what}: {error.why}" if error.why else error.what
    # Only a usage error's place is a file and its line; else it is the node.
    return f"{error.where}: {why}" if isinstance(error, UsageError) and error.where else why
