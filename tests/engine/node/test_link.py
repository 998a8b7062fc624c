"""A link to a node comes back when it breaks, and is given up when that takes too long."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentError
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.model.inventory import NodeSpec, SshEndpoint, TransportKind
from orchestrator.engine.node.link import NodeLink, NodeSilent
from orchestrator.engine.support.clock import SystemClock
from tests.time_limits import assert_within, budget, scaled

pytestmark = pytest.mark.processes

SILENCE_S = 1.5


@pytest.fixture
async def link(tmp_path: Path) -> AsyncIterator[NodeLink]:
    spec = NodeSpec(
        name="n1",
        transport=TransportKind.LOCAL,
        ssh=SshEndpoint(host="n1"),
        workdir=str(tmp_path / "node"),
    )
    link = NodeLink(spec, silence_s=budget(SILENCE_S), limits=ConnectLimits(), clock=SystemClock())
    yield link
    await link.close()


async def kill_agent(link: NodeLink) -> None:
    channel = await link.open(scaled(20))
    os.kill(channel.hello.pid, signal.SIGKILL)


async def test_a_request_outlives_its_agent(link: NodeLink) -> None:
    """Requests that were under way when the agent was killed are answered by the next one."""
    await kill_agent(link)
    replies = await asyncio.gather(*(link.request("runs", timeout_s=scaled(20)) for _ in range(8)))
    assert all(reply.fields["runs"] == [] for reply in replies)
    assert link.opened == 2


async def test_silence_is_counted_once_for_all(link: NodeLink, tmp_path: Path) -> None:
    """Many requests on a dead node end together, after the silence, not one after the other."""
    await kill_agent(link)
    (tmp_path / "node").rename(tmp_path / "gone")
    (tmp_path / "node").touch()
    began = time.monotonic()
    requests = [link.request("runs", timeout_s=scaled(60)) for _ in range(8)]
    answers = await asyncio.gather(*requests, return_exceptions=True)
    took_s = time.monotonic() - began
    assert {type(answer) for answer in answers} == {NodeSilent}
    assert took_s >= SILENCE_S
    assert_within("silence of eight requests", took_s, SILENCE_S + 6)
    began = time.monotonic()
    with pytest.raises(NodeSilent):
        await link.request("runs", timeout_s=scaled(60))
    assert_within("silence that is known", time.monotonic() - began, 3)


async def test_a_refusal_is_no_silence(link: NodeLink) -> None:
    """What the agent refuses is not asked again."""
    await link.open(scaled(20))
    with pytest.raises(AgentError, match="unknown operation"):
        await link.request("no such thing", timeout_s=scaled(20))
    assert link.opened == 1
