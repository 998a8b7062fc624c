"""The same through a real SSH server: login shells, a dropped session, bulk data."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentChannel, ChannelLost
from orchestrator.adapters.transport.open_transport import open_transport
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.model.inventory import NodeSpec, TransportKind
from tests.contracts.agent.attempts import Attempt, running, shell
from tests.contracts.transport.sshd import Sshd
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

LIMITS = ConnectLimits(connect_timeout_s=10, keepalive_interval_s=0.2, keepalive_count=4)
MIB = 1024 * 1024
Reach = Callable[[NodeSpec], Awaitable[AgentChannel]]


@pytest.fixture(scope="module", params=["/bin/sh", "/bin/bash"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sshd]:
    """A server whose user has this login shell, with a start-up file that talks."""
    server = Sshd(tmp_path_factory.mktemp("sshd"), shell=request.param)
    (server.home / ".bashrc").write_text("echo welcome to this node\n")
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=[TransportKind.ASYNCSSH, TransportKind.PARAMIKO])
def spec(request: pytest.FixtureRequest, server: Sshd, workdir: Path) -> NodeSpec:
    return replace(server.node(request.param), workdir=str(workdir))


@pytest.fixture
async def reach() -> AsyncIterator[Reach]:
    """Opens a channel over a connection of its own."""
    async with AsyncExitStack() as stack:

        async def reach(spec: NodeSpec) -> AgentChannel:
            transport = await open_transport(spec, limits=LIMITS)
            stack.push_async_callback(transport.close)
            channel = await AgentChannel.open(transport, spec, timeout_s=scaled(20))
            stack.push_async_callback(channel.close)
            return channel

        yield reach


async def test_a_run_survives_its_session(
    spec: NodeSpec, server: Sshd, reach: Reach, workdir: Path
) -> None:
    """sshd's session is killed in mid-run; nothing is lost, and the second channel sees the end."""
    attempt = Attempt(await reach(spec), workdir, f"run-{uuid.uuid4().hex[:12]}")
    await attempt.watch()
    await attempt.launch(shell(0, "for i in $(seq 200); do echo line $i; sleep 0.005; done"))
    await attempt.follow(lambda a: b"line 20\n" in a.files.get("rank-0.out", b""))

    for pid in server.session_pids():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ChannelLost):
        await attempt.to_end()
    await attempt.watch(await reach(spec))
    concluded = await attempt.to_end()

    expected = "".join(f"line {i}\n" for i in range(1, 201)).encode()
    assert attempt.files["rank-0.out"] == expected
    assert concluded["outcomes"] == {"rank-0": {"exited": 0}}
    assert running(attempt.names["run"]) == []


async def test_the_login_environment_is_what_ranks_get(
    spec: NodeSpec, reach: Reach, workdir: Path
) -> None:
    """HOME and PATH from the login; nothing of SSH, and the address that it came in by."""
    channel = await reach(spec)
    attempt = Attempt(channel, workdir, f"run-{uuid.uuid4().hex[:12]}")
    await attempt.watch()
    await attempt.launch(shell(0, "env -0"))

    await attempt.to_end()
    facts = (await channel.request("probe", timeout_s=scaled(20))).fields["facts"]

    pairs = attempt.files["rank-0.out"].decode().rstrip("\0").split("\0")
    environment = dict(pair.partition("=")[::2] for pair in pairs)
    assert environment["HOME"] == channel.hello.home
    assert environment["PATH"]
    assert not [name for name in environment if name.startswith(("SSH_", "PYTHON"))]
    assert facts["route_address"] == "127.0.0.1"


async def test_bulk_passes_through_ssh(spec: NodeSpec, reach: Reach, workdir: Path) -> None:
    """32 MiB of log arrive whole, with answers in between."""
    attempt = Attempt(await reach(spec), workdir, f"run-{uuid.uuid4().hex[:12]}")
    await attempt.watch()
    await attempt.launch(shell(0, "head -c 33554432 /dev/urandom | tee {output}/copy"))

    await attempt.to_end(60)

    assert attempt.files["rank-0.out"] == (attempt.root / "output" / "copy").read_bytes()
    assert len(attempt.files["rank-0.out"]) == 32 * MIB
