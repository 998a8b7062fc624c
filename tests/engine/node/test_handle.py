"""One node's actions keep their order where it matters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.agent_client.channel import AgentError, Reply
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import BusyError
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.run.actions import Stop, Sweep
from orchestrator.core.run.events import Event, Launched, NodeConcluded, Swept
from orchestrator.core.run.state import NEVER_LAUNCHED
from orchestrator.engine.action_runner import ActionRunner
from orchestrator.engine.node.handle import NodeHandle
from orchestrator.engine.node.node_session import FENCED
from orchestrator.engine.support.context import RunContext
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


def context_of(world: World, agent: Agent, folder: Path) -> RunContext:
    return RunContext(
        request=world.state.request,
        snapshot=None,
        folder=RunFolder(folder / "r1"),
        observers=[],
        dial=agent.dial,  # type: ignore[arg-type]
    )


def begin_node(
    world: World, agent: Agent, folder: Path, told: list[Event | BaseException]
) -> NodeHandle:
    (spec,) = world.state.request.cluster.workers
    return NodeHandle.begin(spec, context_of(world, agent, folder), world.state, told.append)


async def test_a_stop_waits_for_the_launch_that_is_under_way(tmp_path: Path) -> None:
    """A stop that overtakes it would be told that there is nothing to stop."""
    world = World(request("a"), {"Launch/a": lambda _: []})
    world.run()
    assert world.state.plan is not None
    agent, told = Agent(), list[Event | BaseException]()
    node = begin_node(world, agent, tmp_path, told)

    launch = asyncio.create_task(
        node.launcher.launch_ranks(world.state.plan.head, None, independent=False, facts=None)
    )
    await settled()
    stop = asyncio.create_task(node.launcher.stop_ranks(5.0))
    await settled()

    assert agent.asked == ["launch"]
    agent.go_on.set()
    await asyncio.gather(launch, stop)
    assert agent.asked == ["launch", "stop"]
    assert told == [Launched(node="a")] * 2


class Failing(Agent):
    """An agent whose launch fails before there is a supervisor."""

    async def request(
        self, op: str, fields: Mapping[str, Any], *, timeout_s: float, payload: bytes
    ) -> Reply:
        if op == "launch":
            raise AgentError("[Errno 24] Too many open files", id="OR-AGENT-SYSTEM")
        return Reply(fields={"supervisor": "none"} if op == "stop" else {}, payload=b"")


async def test_a_launch_that_failed_concludes_with_the_stop(tmp_path: Path) -> None:
    """Nobody waits for a supervisor that never was."""
    world = World(request("a"), {"Launch/a": lambda _: []})
    world.run()
    assert world.state.plan is not None
    told = list[Event | BaseException]()
    node = begin_node(world, Failing(), tmp_path, told)

    with pytest.raises(AgentError):
        await node.launcher.launch_ranks(world.state.plan.head, None, independent=False, facts=None)
    await node.launcher.stop_ranks(5.0)

    assert told == [NodeConcluded(node="a", clean=True, why=NEVER_LAUNCHED)]


class Refusing(Agent):
    """An agent that knows a newer epoch than that of a stop."""

    async def request(
        self, op: str, fields: Mapping[str, Any], *, timeout_s: float, payload: bytes
    ) -> Reply:
        if op == "stop":
            raise AgentError("epoch 3 holds this run", id=FENCED)
        return await super().request(op, fields, timeout_s=timeout_s, payload=payload)


@pytest.mark.parametrize("swept", [True, False])
async def test_what_our_own_sweep_overtook_is_not_somebody_elses(
    tmp_path: Path, swept: bool
) -> None:
    """A stop that comes after our sweep is refused by our own fence; without one it is another
    coordinator's.
    """
    world = World(request("a"), {"Follow/a": lambda _: []})
    world.run()
    told = list[Event | BaseException]()
    hands = ActionRunner(context_of(world, Refusing(), tmp_path), told.append)
    if swept:
        hands.perform(Sweep(node="a"), world.state)
        await settled()
    hands.perform(Stop(node="a", grace_s=1.0), world.state)
    await settled()
    await hands.close()
    assert [type(event) for event in told] == ([Swept] if swept else [BusyError])
