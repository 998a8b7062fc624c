"""A work directory, channels to it through real processes, and runs that leave nothing behind."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentChannel
from orchestrator.adapters.transport.local_process import LocalTransport
from orchestrator.core.model.inventory import NodeSpec, SshEndpoint
from tests.contracts.agent.attempts import Attempt, running
from tests.time_limits import scaled

OPEN_S = 20.0
OpenChannel = Callable[[], Awaitable[AgentChannel]]
MakeAttempt = Callable[..., Awaitable[Attempt]]


@pytest.fixture(scope="session")
def shared_workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agent") / "work"


@pytest.fixture
def workdir(shared_workdir: Path) -> Path:
    """One for all tests, as on a real node: runs are apart. Modules that look at all of it have
    their own.
    """
    return shared_workdir


@pytest.fixture
def spec(workdir: Path) -> NodeSpec:
    return NodeSpec(name="n1", ssh=SshEndpoint(host="localhost"), workdir=str(workdir))


@pytest.fixture
async def open_channel(spec: NodeSpec) -> AsyncIterator[OpenChannel]:
    """Opens channels over a transport of their own; all are closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_one() -> AgentChannel:
            transport = LocalTransport(spec.name)
            stack.push_async_callback(transport.close)
            channel = await AgentChannel.open(transport, spec, timeout_s=scaled(OPEN_S))
            stack.push_async_callback(channel.close)
            return channel

        yield open_one


@pytest.fixture
async def channel(open_channel: OpenChannel) -> AgentChannel:
    return await open_channel()


@pytest.fixture
async def make_attempt(
    channel: AgentChannel, open_channel: OpenChannel, workdir: Path
) -> AsyncIterator[MakeAttempt]:
    """Attempts of new runs, watched from the start. Whatever happens, they are swept afterwards."""
    made: list[Attempt] = []

    async def make(node: str = "n1", watched: bool = True) -> Attempt:
        attempt = Attempt(channel, workdir, f"run-{uuid.uuid4().hex[:12]}", node)
        made.append(attempt)
        if watched:
            await attempt.watch()
        return attempt

    yield make
    sweeper = await open_channel()
    for attempt in made:
        names = {"run": attempt.names["run"], "node": attempt.names["node"]}
        await sweeper.request("sweep", names, timeout_s=scaled(30))
    assert [pid for attempt in made for pid in running(attempt.names["run"])] == []


@pytest.fixture
async def attempt(make_attempt: MakeAttempt) -> Attempt:
    return await make_attempt()
