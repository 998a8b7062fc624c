"""Nodes behind bastions: shared, chained, broken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.core.base.command import Command
from orchestrator.core.base.outcome import Exited
from orchestrator.core.model.inventory import NodeSpec, TransportKind
from tests.contracts.transport.conftest import Open, refused
from tests.contracts.transport.sshd import Sshd
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

MakeSshd = Callable[..., Sshd]


def through(jump: Sshd, *servers: Sshd, kind: TransportKind) -> list[NodeSpec]:
    """``servers`` as seen from an ssh_config that reaches them through ``jump`` alone."""
    blocks = [server.config_block() + f"  ProxyJump {jump.name}\n" for server in servers]
    for server in servers:
        server.ssh_config.write_text("".join([*blocks, jump.config_block()]))
    return [server.node(kind) for server in servers]


async def test_jump_hosts_are_shared(make_sshd: MakeSshd, connect: Open) -> None:
    """Six nodes behind one bastion need one handshake with it, and close it when they are done."""
    jump, inner = make_sshd(name="jump"), make_sshd(name="inner")
    (spec,) = through(jump, inner, kind=TransportKind.ASYNCSSH)

    transports = await asyncio.gather(*(connect(spec) for _ in range(6)))
    results = await asyncio.gather(
        *(
            t.run(Command(argv=("sh", "-c", "echo $SSH_CONNECTION")), timeout_s=scaled(15))
            for t in transports
        )
    )

    assert {r.outcome for r in results} == {Exited(0)}
    assert jump.count_logged("Accepted publickey") == 1
    assert inner.count_logged("Accepted publickey") == 6
    for transport in transports[:-1]:
        await transport.close()
    assert (
        await transports[-1].run(Command(argv=("true",)), timeout_s=scaled(15))
    ).outcome == Exited(0)
    await transports[-1].close()
    again = await connect(spec)
    assert (await again.run(Command(argv=("true",)), timeout_s=scaled(15))).outcome == Exited(0)
    assert jump.count_logged("Accepted publickey") == 2


async def test_jump_hosts(ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open) -> None:
    """A node behind a bastion is reached like any other."""
    jump, inner = make_sshd(name="jump"), make_sshd(name="inner")
    (spec,) = through(jump, inner, kind=ssh_kind)

    transport = await connect(spec)
    done = await transport.run(Command(argv=("cat",)), stdin=bytes(100_000), timeout_s=scaled(15))

    assert (done.outcome, done.stdout) == (Exited(0), bytes(100_000))
    assert jump.count_logged("Accepted publickey") == 1


async def test_a_chain_of_jump_hosts(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """``jump: a,b`` goes through a to b to the node, and overrules ssh_config."""
    first, second, inner = (make_sshd(name=n) for n in ("first", "second", "inner"))
    inner.ssh_config.write_text(
        "".join(s.config_block() for s in (first, second))
        + inner.config_block()
        + "  ProxyJump nowhere.invalid\n"
    )
    spec = inner.node(ssh_kind)
    spec = replace(spec, ssh=replace(spec.ssh, jump=f"{first.name},{second.name}"))

    transport = await connect(spec)

    assert (await transport.run(Command(argv=("true",)), timeout_s=scaled(15))).outcome == Exited(0)
    assert [s.count_logged("Accepted publickey") for s in (first, second, inner)] == [1, 1, 1]


async def test_proxy_commands(ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open) -> None:
    """ssh_config's ProxyCommand carries the connection."""
    jump, inner = make_sshd(name="jump"), make_sshd(name="inner")
    inner.ssh_config.write_text(
        f"{jump.config_block()}{inner.config_block()}"
        f"  ProxyCommand ssh -F {jump.ssh_config} -W %h:%p {jump.name}\n"
    )

    transport = await connect(inner, ssh_kind)

    assert (await transport.run(Command(argv=("true",)), timeout_s=scaled(15))).outcome == Exited(0)
    await transport.close()


async def test_a_failing_jump_host_is_named(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """The error is about the bastion, with the bastion's own cause."""
    jump, inner = make_sshd(name="jump"), make_sshd(name="inner")
    jump.known_hosts.write_text("")
    (spec,) = through(jump, inner, kind=ssh_kind)

    error = await refused(connect, spec, ssh_kind)

    assert error.id == "OR-SSH-008"
    assert jump.name in error.what
    assert "OR-SSH-003" in f"{error.what} {error.why}"


async def test_a_node_that_its_jump_host_cannot_reach(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """The bastion is fine, the node is not."""
    jump, inner = make_sshd(name="jump"), make_sshd(name="inner", start=False)
    (spec,) = through(jump, inner, kind=ssh_kind)

    assert (await refused(connect, spec, ssh_kind)).id == "OR-SSH-001"


async def test_a_jump_host_that_jumps_through_itself(
    library_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """The classic ``Host *`` mistake ends in an error, not in a loop."""
    server = make_sshd()
    server.ssh_config.write_text(f"Host *\n  ProxyJump {server.name}\n")

    assert (await refused(connect, server, library_kind)).id == "OR-SSH-008"
