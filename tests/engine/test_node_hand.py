"""One node's actions keep their order where it matters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.events import Event, Launched
from orchestrator.core.inventory import NodeSpec
from orchestrator.edges.agent.channel import Reply
from orchestrator.edges.store.layout import RunFolder
from orchestrator.edges.transport.base import ConnectLimits
from orchestrator.engine.context import RunContext
from orchestrator.engine.node_hand import NodeHand
from tests.core.world import World, request


class Agent:
    """An agent whose launch takes until it is told to go on."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = asyncio.Event()

    async def dial(self, spec: NodeSpec, *, limits: ConnectLimits, timeout_s: float) -> Agent:
        return self

    async def request(
        self, op: str, fields: Mapping[str, Any], *, timeout_s: float, payload: bytes
    ) -> Reply:
        self.asked.append(op)
        if op == "launch":
            await self.go_on.wait()
        return Reply(fields={}, payload=b"")

    async def close(self) -> None:
        """Nothing to give back."""


async def settled() -> None:
    """Every task has come to where it must wait."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_stop_waits_for_the_launch_that_is_under_way(tmp_path: Path) -> None:
    """A stop that overtakes it would be told that there is nothing to stop."""
    world = World(request("a"), {"Launch/a": lambda _: []})
    world.run()
    assert world.state.plan is not None
    agent, told = Agent(), list[Event | BaseException]()
    context = RunContext(
        request=world.state.request,
        snapshot=None,
        folder=RunFolder(tmp_path / "r1"),
        observers=[],
        dial=agent.dial,  # type: ignore[arg-type]
    )
    (spec,) = world.state.request.cluster.workers
    hand = NodeHand(spec, context, world.state, told.append)

    launch = asyncio.create_task(hand.launch(world.state.plan.head, None))
    await settled()
    stop = asyncio.create_task(hand.stop(5.0))
    await settled()

    assert agent.asked == ["launch"]
    agent.go_on.set()
    await asyncio.gather(launch, stop)
    assert agent.asked == ["launch", "stop"]
    assert told == [Launched(node="a")] * 2
