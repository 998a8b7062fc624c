"""The coordinator's end: noise, hostile bytes, dead links, deadlines, idempotent ids."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, aclosing
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import (
    AgentChannel,
    AgentError,
    AgentTimeout,
    ChannelLost,
    Payload,
)
from orchestrator.adapters.agent_client.package import agent_package
from orchestrator.adapters.transport.local_process import LocalTransport
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.model.inventory import NodeSpec
from tests.contracts.agent.attempts import eventually, exists
from tests.contracts.agent.conftest import OpenChannel
from tests.contracts.agent.fake_node import GREETED, WELCOME, FakeNode, NoisyNode
from tests.time_limits import assert_within, scaled

pytestmark = pytest.mark.processes

Visit = Callable[..., Awaitable[AgentChannel]]


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return tmp_path / "work"


@pytest.fixture
async def visit(spec: NodeSpec) -> AsyncIterator[Visit]:
    """Opens a channel over a given transport, and closes both after the test."""
    opened: list[tuple[AgentChannel | None, LocalTransport]] = []

    async def visit(transport: LocalTransport, timeout_s: float = 20.0) -> AgentChannel:
        opened.append((None, transport))
        channel = await AgentChannel.open(transport, spec, timeout_s=timeout_s)
        opened[-1] = (channel, transport)
        return channel

    yield visit
    for channel, transport in opened:
        if channel:
            await channel.close()
        await transport.close()


def test_the_package_is_the_same_bytes_each_time() -> None:
    """Its digest names a directory on every node: it must depend on the sources alone."""
    first = agent_package()
    agent_package.cache_clear()

    assert agent_package() == first


async def test_it_says_hello_and_is_unpacked_once(open_channel: OpenChannel) -> None:
    """The second start finds what the first one left, also when two start at once."""
    channels = await asyncio.gather(*(open_channel() for _ in range(3)))

    hellos = [channel.hello for channel in channels]
    assert {hello.agent for hello in hellos} == {agent_package().digest[:16]}
    assert len({hello.pid for hello in hellos}) == 3


@pytest.mark.parametrize(
    "noise",
    [
        'echo Welcome; echo \'{"event":"hello"}\'',
        "head -c 500000 /dev/zero",
        "printf 'no newline at the end'",
        "head -c 300000 /dev/urandom",
    ],
)
async def test_what_a_login_shell_says_first_is_dropped(visit: Visit, noise: str) -> None:
    channel = await visit(NoisyNode(noise))

    assert (await channel.request("runs", timeout_s=scaled(10))).fields["runs"] == []


@pytest.mark.parametrize(
    "script,why",
    [
        (GREETED + 'say(b"x" * 3_000_000)', "came before"),
        (GREETED + "sys.exit(5)", "exited with code 5"),
        (GREETED + "os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        (GREETED + 'say(nonce + b" refused python3 on this node is 3.6\\n")', "3.6"),
        (GREETED + 'say(b"\\n" + nonce + b" have\\n\\n" + nonce + b" refused why\\n")', "why"),
        (GREETED + 'say(b"\\n" + nonce + b" need\\n\\n" + nonce + b" refused why\\n")', "why"),
        (GREETED + 'say(b"\\n" + nonce + b" have\\n\\nnothing\\n")', "exited with code 0"),
        (GREETED + 'say(b"\\n" + nonce + b" have\\n{}\\n")', "no sense"),
        (GREETED + 'say(b"\\n" + nonce + b" have\\n" + hello.replace(nonce, b"0"))', "no sense"),
        (GREETED + 'say(b"\\n" + nonce + b" have\\n" + b"[" * 900_000 + b"\\n")', "no sense"),
        (GREETED + 'say(b"\\n" + nonce + b" have\\n" + b" " * 2_000_000)', "no sense"),
        ('print("python3: command not found")', "exited with code 0"),
    ],
)
async def test_a_start_that_fails_says_why(visit: Visit, script: str, why: str) -> None:
    """Every way to fail is a preflight error with its reason, and no process stays."""
    with pytest.raises(PreflightError) as refused:
        await visit(FakeNode(script))

    assert refused.value.id == "OR-AGENT-START"
    assert why in refused.value.why


async def test_a_start_that_hangs_ends_at_its_deadline(visit: Visit) -> None:
    began = time.monotonic()

    with pytest.raises(AgentTimeout):
        await visit(FakeNode("import time; time.sleep(60)"), timeout_s=0.5)

    assert_within("a start that hangs", time.monotonic() - began, 5)


@pytest.mark.parametrize(
    "bad",
    [
        "b'not json\\n'",
        "b'[1]\\n'",
        "b'\"text\"\\n'",
        "b'\\xff\\xfe\\n'",
        "b'{\"a\":' * 200_000 + b'1' + b'}' * 200_000 + b'\\n'",
        "b'{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}\\n'",
        'b\'{"event":"x","n":NaN}\\n\'',
        'b\'{"event":"x","n":1e999}\\n\'',
        "b'{\"event\":7}\\n'",
        'b\'{"event":"log","payload":-1}\\n\'',
        'b\'{"event":"log","payload":true}\\n\'',
        'b\'{"event":"log","payload":99999999999}\\n\'',
        "b'x' * 2_000_000",
    ],
)
async def test_what_is_not_a_frame_ends_the_channel(visit: Visit, bad: str) -> None:
    """A pending request and the event stream both learn it, as a typed error."""
    channel = await visit(FakeNode(WELCOME + f"i.readline(); say({bad}); i.read()"))

    with pytest.raises(ChannelLost) as lost:
        await channel.request("probe", timeout_s=scaled(10))
    with pytest.raises(ChannelLost):
        await anext(channel.events())

    assert "protocol error" in lost.value.why


async def test_events_that_nobody_asked_for_are_bounded(visit: Visit) -> None:
    """A node that floods us is cut off instead of filling our memory."""
    flood = (
        'while True: say(b\'{"event":"log","watch":"1","payload":1000000}\\n\' + b"x" * 1_000_000)'
    )
    channel = await visit(FakeNode(WELCOME + flood))

    with pytest.raises(ChannelLost) as lost:
        await channel.request("probe", timeout_s=scaled(20))

    assert "more events" in lost.value.why


async def test_a_link_that_dies_is_named(visit: Visit) -> None:
    """Its last words on standard error are kept; later requests fail at once."""
    script = (
        WELCOME
        + 'i.readline(); sys.stderr.write("disk on fire\\n"); sys.stderr.flush(); os._exit(3)'
    )
    channel = await visit(FakeNode(script))

    with pytest.raises(ChannelLost) as lost:
        await channel.request("probe", timeout_s=scaled(10))
    with pytest.raises(ChannelLost):
        await channel.request("probe", timeout_s=scaled(10))

    assert lost.value.why == "the agent exited with code 3. disk on fire"


async def test_a_silent_node_meets_the_deadline(visit: Visit) -> None:
    """The request ends, the channel lives; the late answer disturbs nothing."""
    script = WELCOME + (
        "import json\n"
        "a = json.loads(i.readline()); b = json.loads(i.readline())\n"
        "for r in (a, b):\n"
        '  say(json.dumps({"id": r["id"], "ok": True, "op": r["op"]}).encode() + b"\\n")\n'
        "i.read()"
    )
    channel = await visit(FakeNode(script))

    with pytest.raises(AgentTimeout):
        await channel.request("first", timeout_s=0.3)
    reply = await channel.request("second", timeout_s=scaled(10))

    assert reply.fields["op"] == "second"


@pytest.mark.parametrize(
    "error,id",
    [
        ('{"id": "OR-AGENT-BUSY", "message": "taken \\x1b[31m"}', "OR-AGENT-BUSY"),
        ('{"id": "rm -rf", "message": 5}', "OR-AGENT-UNKNOWN"),
        ("[]", "OR-AGENT-UNKNOWN"),
        ("None", "OR-AGENT-UNKNOWN"),
    ],
)
async def test_refusals_are_typed_and_printable(visit: Visit, error: str, id: str) -> None:
    answer = f'{{"id": json.loads(i.readline())["id"], "ok": False, "error": {error}}}'
    script = WELCOME + f'say(json.dumps({answer}).encode() + b"\\n"); i.read()'
    channel = await visit(FakeNode(script))

    with pytest.raises(AgentError) as refused:
        await channel.request("probe", timeout_s=scaled(10))

    assert refused.value.id == id
    assert refused.value.what.isprintable()


async def test_closing_ends_the_process_and_the_events(channel: AgentChannel) -> None:
    """End of input is enough: the agent leaves promptly. Closing twice is harmless."""
    began = time.monotonic()
    await channel.close()
    await channel.close()

    assert_within("closing a channel", time.monotonic() - began, 2)
    assert not exists(channel.hello.pid)
    assert [event async for event in channel.events()] == []
    with pytest.raises(ChannelLost):
        await channel.request("runs", timeout_s=scaled(5))


async def test_an_upload_that_lies_ends_the_channel(channel: AgentChannel) -> None:
    """Fewer or more bytes than announced would leave the stream without meaning."""

    async def short() -> AsyncIterator[bytes]:
        yield b"abc"

    with pytest.raises(ValueError, match="10 bytes"):
        await channel.request(
            "offer", payload=Payload(size=10, chunks=short()), timeout_s=scaled(5)
        )
    with pytest.raises(ChannelLost):
        await channel.request("runs", timeout_s=scaled(5))


async def test_a_payload_that_an_operation_refuses_is_passed_over(channel: AgentChannel) -> None:
    """The next request is understood, whatever came before it."""
    with pytest.raises(AgentError):
        await channel.request(
            "no-such-operation", payload=b"\n{}\n" * 100_000, timeout_s=scaled(10)
        )

    assert (await channel.request("runs", timeout_s=scaled(10))).fields["runs"] == []


async def test_an_id_is_performed_once(channel: AgentChannel) -> None:
    """A repeat gets the first one's answer, while it executes and afterwards."""
    first = await channel.request("listen", timeout_s=scaled(5), id="same")
    again = await channel.request("listen", timeout_s=scaled(5), id="same")
    other = await channel.request("listen", timeout_s=scaled(5))

    assert again.fields == first.fields != other.fields


async def test_a_repeat_that_comes_early_shares_the_answer(channel: AgentChannel) -> None:
    """The operation takes two seconds; asked again after one, its answer comes one later."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # with one connection waiting, the next one gets no answer
        stack.enter_context(socket.create_connection(full.getsockname()))
        slow = {"targets": [list(full.getsockname())], "timeout_s": 2.0}
        with pytest.raises(AgentTimeout):
            await channel.request("dial", slow, timeout_s=1.0, id="slow")
        began = time.monotonic()
        reply = await channel.request("dial", slow, timeout_s=scaled(5), id="slow")
        took_s = time.monotonic() - began

    assert reply.fields["results"] == [{"ok": False, "error": "timed out"}]
    assert took_s < 2, "what is performed anew takes as long as the first time"


async def test_a_killed_agent_is_lost_at_once(channel: AgentChannel) -> None:
    os.kill(channel.hello.pid, signal.SIGKILL)

    async with asyncio.timeout(scaled(5)), aclosing(channel.events()) as events:
        with pytest.raises(ChannelLost) as lost:
            await anext(events)

    assert "SIGKILL" in lost.value.why


async def test_garbage_ends_the_agent(channel: AgentChannel) -> None:
    """The node trusts the stream no more than we do."""
    await channel._process.write(b"this is no frame\n")

    with pytest.raises(ChannelLost) as lost:
        await channel.request("runs", timeout_s=scaled(5))

    assert "not JSON" in lost.value.why
    await eventually(lambda: not exists(channel.hello.pid))
