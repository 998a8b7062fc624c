"""SSH links that fail: dead, silent, cut in the middle, and what becomes of the command."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.transport.paramiko.paramiko_connect import ParamikoLink
from orchestrator.adapters.transport.paramiko.paramiko_ssh import ParamikoProcess
from orchestrator.adapters.transport.transport import ChannelClosed
from orchestrator.core.base.command import Command
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.base.outcome import Exited, Lost
from orchestrator.core.model.inventory import NodeSpec, TransportKind
from tests.contracts.transport.conditions import is_running, recognisable_duration, until
from tests.contracts.transport.conftest import QUICK, Open
from tests.contracts.transport.proxy import Proxy
from tests.contracts.transport.sshd import Sshd, kill
from tests.time_limits import assert_within, scaled

pytestmark = pytest.mark.processes

MakeSshd = Callable[..., Sshd]
SILENT_S = QUICK.silence_s + 2 * QUICK.keepalive_interval_s + 2.5
HEAVY = Command(argv=("head", "-c", "8000000", "/dev/zero"))


def behind(server: Sshd, proxy: Proxy, kind: TransportKind) -> NodeSpec:
    """``server`` reached through ``proxy``; its host key stays filed under its own name."""
    server.ssh_config.write_text(
        server.config_block().replace(f"Port {server.port}", f"Port {proxy.port}")
        + f"  HostKeyAlias [127.0.0.1]:{server.port}\n"
    )
    return server.node(kind)


async def test_a_killed_session_is_lost_not_done(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """sshd's session process dies in the middle of a command: nobody knows how that ended."""
    server = make_sshd()
    transport = await connect(server, ssh_kind)
    process = await transport.start(
        Command(argv=("sh", "-c", "echo on; sleep 30")), timeout_s=scaled(10)
    )
    assert await process.read_line(100) == b"on\n"

    for pid in server.session_pids():
        kill(pid)

    assert isinstance(await process.wait(scaled(10)), Lost)
    assert await process.read_stdout(10) == b""
    with pytest.raises(ChannelClosed):
        await process.write(b"more")
    with pytest.raises(ChannelClosed):
        await transport.start(Command(argv=("true",)), timeout_s=scaled(10))
    done = await transport.run(Command(argv=("true",)), timeout_s=scaled(10))
    assert isinstance(done.outcome, Lost)


async def test_a_link_that_is_cut_here_is_lost_at_once(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """Its processes are lost, it starts no more, and closing it afterwards is quick."""
    transport = await connect(make_sshd(), ssh_kind)
    process = await transport.start(
        Command(argv=("sh", "-c", "echo on; sleep 30")), timeout_s=scaled(10)
    )
    assert await process.read_line(100) == b"on\n"

    assert transport.cut()

    assert isinstance(await process.wait(scaled(2)), Lost)
    with pytest.raises(ChannelClosed):
        await transport.start(Command(argv=("true",)), timeout_s=scaled(10))
    began = time.monotonic()
    await transport.close()
    assert_within("closing a cut link", time.monotonic() - began, 3)


async def test_a_silent_link_is_lost_soon(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """No FIN, no RST, just silence: keepalive ends the wait within its own bound."""
    server = make_sshd()
    async with Proxy(server.port) as proxy:
        transport = await connect(behind(server, proxy, ssh_kind), ssh_kind)
        duration = recognisable_duration()
        command = Command(argv=("sleep", duration))
        running = asyncio.create_task(transport.run(command, timeout_s=scaled(30)))
        await until(lambda: is_running(duration), what="the command's start")

        proxy.freeze()
        began = time.monotonic()
        done = await running

        assert isinstance(done.outcome, Lost)
        assert_within("the loss of a silent link", time.monotonic() - began, SILENT_S)
        began = time.monotonic()
        await transport.close()
        assert_within("closing a silent link", time.monotonic() - began, 3)


async def test_a_quiet_command_outlives_the_silence_bound(
    ssh_kind: TransportKind, sshd: Sshd, connect: Open
) -> None:
    """Keepalive tells a quiet command from a dead link."""
    transport = await connect(sshd, ssh_kind)

    done = await transport.run(
        Command(argv=("sleep", str(QUICK.silence_s * 1.5))), timeout_s=scaled(15)
    )

    assert done.outcome == Exited(0)


@pytest.mark.parametrize("count_bytes", [0, 1, 20, 5_000, 1_000_000, 7_999_000, 8_000_000])
async def test_a_cut_transfer_is_lost(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, count_bytes: int
) -> None:
    """Wherever the link breaks, a partial output never passes for a whole one."""
    server = make_sshd()
    async with Proxy(server.port) as proxy:
        transport = await connect(behind(server, proxy, ssh_kind), ssh_kind)

        proxy.cut_after(count_bytes)
        done = await transport.run(HEAVY, timeout_s=scaled(15))

    assert isinstance(done.outcome, Lost)
    assert len(done.stdout) <= count_bytes
    assert done.stdout == bytes(len(done.stdout))


async def test_an_early_status_does_not_make_a_cut_transfer_whole(
    make_sshd: MakeSshd, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sshd may send the status before the last of the output, and a paramiko link that breaks
    closes its channels before it counts as inactive.
    """
    server = make_sshd()
    async with Proxy(server.port) as proxy:
        spec = behind(server, proxy, TransportKind.PARAMIKO)
        transport = await connect(spec, TransportKind.PARAMIKO)
        process = await transport.start(
            Command(argv=("sh", "-c", "echo on; sleep 30")), timeout_s=scaled(10)
        )
        assert isinstance(process, ParamikoProcess)
        assert await process.read_line(100) == b"on\n"

        monkeypatch.setattr(ParamikoLink, "is_active", lambda _: True)
        process._channel.exit_status = 0
        process._channel.status_event.set()
        proxy.cut()

        assert await process.read_stdout(10) == b""
        assert isinstance(await process.wait(scaled(10)), Lost)


async def test_a_node_that_reboots_does_not_hang_close(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """Closing a link whose other end is silent takes a bounded time."""
    server = make_sshd()
    async with Proxy(server.port) as proxy:
        transport = await connect(behind(server, proxy, ssh_kind), ssh_kind)
        await transport.start(Command(argv=("cat",)), timeout_s=scaled(10))
        proxy.freeze()

        began = time.monotonic()
        await transport.close()

    assert_within("closing a link to a silent server", time.monotonic() - began, 3)


async def test_a_server_that_accepts_and_says_nothing(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """The handshake has a deadline of its own."""
    server = make_sshd()
    limits = replace(QUICK, connect_timeout_s=0.5)
    async with Proxy(server.port) as proxy:
        spec = behind(server, proxy, ssh_kind)
        proxy.freeze()

        began = time.monotonic()
        with pytest.raises(PreflightError) as caught:
            await connect(spec, ssh_kind, limits)

    assert caught.value.id == "OR-SSH-001"
    assert_within("the refusal of a silent server", time.monotonic() - began, 3)


async def test_closed_transports_leave_nothing_open(spec: NodeSpec, connect: Open) -> None:
    """No descriptor, thread or task outlives ``close``, whatever ran before."""
    command = Command(argv=("cat",))
    # The first connection starts what stays for good: executor threads, the loop's own pipes.
    warm_up = await connect(spec)
    await warm_up.run(command, timeout_s=scaled(10))
    await warm_up.close()
    before = open_descriptors(), asyncio.all_tasks(), other_threads()

    for _ in range(3):
        transport = await connect(spec)
        await transport.run(command, stdin=bytes(100_000), timeout_s=scaled(10))
        await transport.start(command, timeout_s=scaled(10))
        await transport.run(Command(argv=("sleep", "60")), timeout_s=0.1)
        await transport.close()

    await until(lambda: open_descriptors() <= before[0], what="closed descriptors")
    await until(lambda: asyncio.all_tasks() <= before[1], what="ended tasks")
    await until(lambda: other_threads() <= before[2], what="ended threads")


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def other_threads() -> set[threading.Thread]:
    """Those that connections start; tests before this one may have left some of that name."""
    return {t for t in threading.enumerate() if t.name.startswith(("ssh-", "Thread-"))}
