"""An agent ends when nobody talks to it any more; a coordinator that is there lets it know."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client import channel as channel_module
from orchestrator.adapters.agent_client.channel import AgentChannel, Payload
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.node_agent.base import wire
from tests.contracts.agent.fake_node import WELCOME, FakeNode
from tests.time_limits import assert_within, budget, scaled, wait_for_exit

pytestmark = pytest.mark.processes

SERVE = """
import sys
from orchestrator.node_agent import main
from orchestrator.node_agent.base import wire
wire.SILENCE_S = float(sys.argv[2])
main.serve_channel(sys.stdin.buffer, "nonce", sys.argv[1], "agent")
"""
SILENCE_S = 1.0
Agent = subprocess.Popen[bytes]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """One that waits for about a second only. It has said hello."""
    argv = [sys.executable, "-c", SERVE, str(tmp_path / "work"), str(budget(SILENCE_S))]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "hello"
        yield process
        process.kill()


def say(agent: Agent, data: bytes) -> None:
    assert agent.stdin is not None
    agent.stdin.write(data)
    agent.stdin.flush()


def keep_on(agent: Agent, talk: Callable[[int], bytes]) -> float:
    """Talk for two and a half times as long as it would wait; how long it lived after that."""
    for turn in range(10):
        say(agent, talk(turn))
        time.sleep(budget(SILENCE_S) / 4)  # what is measured is time without a word
    assert agent.poll() is None
    began = time.monotonic()
    wait_for_exit(agent, 10)
    return time.monotonic() - began


def test_pings_keep_it_alive(agent: Agent) -> None:
    """It answers none of them, and ends when they stay away."""
    after_s = keep_on(agent, lambda turn: b'{"id":"p%d","op":"ping"}\n' % turn)

    assert after_s > 0.3
    assert_within("the end of an agent that hears nothing", after_s, 3)
    assert agent.returncode == -signal.SIGALRM
    assert agent.stdout is not None
    assert agent.stdout.read() == b""


def test_a_slow_upload_is_no_silence(agent: Agent) -> None:
    """Each piece of a long payload counts, also while no frame can come in between."""
    size = 10 * wire.CHUNK_BYTES
    say(agent, b'{"id":"o","op":"offer","digest":"%s","payload":%d}\n' % (b"a" * 64, size + 1))

    after_s = keep_on(agent, lambda _: b" " * wire.CHUNK_BYTES)

    assert after_s > 0.3
    assert_within("the end of an agent that hears nothing", after_s, 3)
    assert agent.returncode == -signal.SIGALRM


async def test_a_channel_pings_while_it_is_open(
    spec: NodeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again and again, and no more once it is closed; the agent waits much longer than that."""
    assert channel_module.PING_S * 5 <= wire.SILENCE_S <= 300
    monkeypatch.setattr(channel_module, "PING_S", 0.05)
    echo = (
        "for line in i:\n"
        ' say(json.dumps({"event": "heard", "op": json.loads(line)["op"]}).encode() + b"\\n")'
    )
    transport = FakeNode(WELCOME + echo)
    channel = await AgentChannel.open(transport, spec, timeout_s=scaled(10))
    async with asyncio.timeout(scaled(10)):
        events = channel.events()
        heard = [(await anext(events)).fields["op"] for _ in range(3)]
        await events.aclose()
    await channel.close()
    await transport.close()

    assert heard == ["ping"] * 3
    assert all(task.done() for task in channel._tasks)


async def test_an_upload_goes_before_pings(spec: NodeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings that wait for their turn too long are left out; the channel and the upload live on."""
    monkeypatch.setattr(channel_module, "PING_S", 0.05)
    script = (
        "request = json.loads(i.readline())\n"
        'while request["op"] == "ping": request = json.loads(i.readline())\n'
        'data = i.read(request["payload"])\n'
        'say(json.dumps({"id": request["id"], "ok": True, "size": len(data)}).encode() + b"\\n")\n'
        "i.read()"
    )
    transport = FakeNode(WELCOME + script)
    channel = await AgentChannel.open(transport, spec, timeout_s=scaled(10))

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(5):
            await asyncio.sleep(0.1)
            yield b"abcd"

    reply = await channel.request(
        "offer", payload=Payload(size=20, chunks=slowly()), timeout_s=scaled(10)
    )
    lost = channel.lost
    await channel.close()
    await transport.close()

    assert reply.fields["size"] == 20
    assert lost is None
