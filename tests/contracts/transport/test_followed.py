"""What ssh_config demands of a connection is done, by both libraries, or the node is refused."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.core.base.command import Command
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.outcome import Exited
from orchestrator.core.model.inventory import TransportKind
from tests.contracts.transport.conditions import is_listening, until
from tests.contracts.transport.conftest import Open, refused
from tests.contracts.transport.relay import demand
from tests.contracts.transport.sshd import USER, Sshd, make_key, public_half
from tests.contracts.transport.test_connecting import sign
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

MakeSshd = Callable[..., Sshd]


async def test_variables_are_sent(
    ssh_kind: TransportKind,
    make_sshd: MakeSshd,
    connect: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SetEnv and SendEnv, as far as the server accepts them; SetEnv over SendEnv."""
    monkeypatch.setenv("LC_ONE", "from here")
    monkeypatch.setenv("LC_TWO", "from here")
    monkeypatch.setenv("OTHER", "stays here")
    server = make_sshd(options=("AcceptEnv FOO LC_* B",))
    demand(
        server, 'SetEnv FOO=bar B="it is" LC_TWO=set HIDDEN=x', "SetEnv FOO=late", "SendEnv LC_*"
    )

    transport = await connect(server, ssh_kind)
    done = await transport.run(Command(argv=("env",)), timeout_s=scaled(15))

    assert done.outcome == Exited(0)
    seen = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert (seen["FOO"], seen["B"]) == ("bar", "it is")
    assert (seen["LC_ONE"], seen["LC_TWO"]) == ("from here", "set")
    assert not {"OTHER", "HIDDEN"} & seen.keys()


@pytest.mark.parametrize("family,reached", [("any", True), ("inet", True), ("inet6", False)])
async def test_address_families(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, family: str, reached: bool
) -> None:
    """``localhost`` is an IPv4 address here, and the server listens on no other."""
    server = make_sshd()
    server.known_hosts.write_text(f"* {public_half(server.host_key)}\n")
    demand(server, f"AddressFamily {family}", "HostName localhost")

    if reached:
        await connect(server, ssh_kind)
    else:
        assert (await refused(connect, server, ssh_kind)).id in {"OR-SSH-001", "OR-SSH-005"}


async def test_where_to_dial_from(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """BindAddress."""
    server = make_sshd()
    demand(server, "BindAddress 127.0.0.9")

    await connect(server, ssh_kind)

    assert server.count_logged("Connection from 127.0.0.9") == 1


async def test_certificates_of_another_place(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, tmp_path: Path
) -> None:
    """CertificateFile."""
    authority = make_key(tmp_path / "authority")
    server = make_sshd(start=False)
    (server.home / ".ssh" / "authorized_keys").unlink()
    sign(authority, server.client_key, "-n", USER)
    moved = tmp_path / "elsewhere-cert.pub"
    server.client_key.with_name(f"{server.client_key.name}-cert.pub").rename(moved)
    server.options = (f"TrustedUserCAKeys {authority}.pub",)
    demand(server, f"CertificateFile {moved}")
    server.start()

    await connect(server, ssh_kind)


@pytest.mark.parametrize("chosen", ["%d/agent", "$LAB_AGENT", "${LAB_AGENT}"])
async def test_an_agent_that_is_not_the_environments(
    ssh_kind: TransportKind,
    make_sshd: MakeSshd,
    connect: Open,
    monkeypatch: pytest.MonkeyPatch,
    chosen: str,
) -> None:
    """IdentityAgent by path and by variable."""
    server = make_sshd()
    address = server.root / "agent"
    monkeypatch.setenv("LAB_AGENT", str(address))
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent")
    agent = await asyncio.create_subprocess_exec(
        "ssh-agent", "-D", "-a", str(address), stdout=subprocess.DEVNULL
    )
    try:
        await until(lambda: is_listening(address), what="the agent's socket")
        environment = {**os.environ, "SSH_AUTH_SOCK": str(address)}
        add = ["ssh-add", "-q", str(server.client_key)]
        await asyncio.to_thread(
            subprocess.run, add, check=True, timeout=scaled(10), env=environment
        )
        server.client_key.unlink()
        demand(server, f"IdentityAgent {chosen.replace('%d', str(server.root))}")

        await connect(server, ssh_kind)
    finally:
        agent.kill()
        await agent.wait()


async def test_revoked_host_keys_of_a_file(
    library_kind: TransportKind, make_sshd: MakeSshd, connect: Open, tmp_path: Path
) -> None:
    """RevokedHostKeys overrules known_hosts; a file that cannot be used refuses the node."""
    server = make_sshd()
    revoked = tmp_path / "revoked"
    demand(server, f"RevokedHostKeys {revoked}")

    with pytest.raises(UsageError) as caught:
        await connect(server, library_kind)
    assert "RevokedHostKeys" in caught.value.what

    revoked.write_text("# none so far\n\n")
    await connect(server, library_kind)
    revoked.write_text(f"# stolen\n{public_half(server.host_key)} host three\n")
    assert (await refused(connect, server, library_kind)).id == "OR-SSH-010"
    command = ["ssh-keygen", "-q", "-k", "-f", str(revoked), f"{server.host_key}.pub"]
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=scaled(10))
    with pytest.raises(UsageError) as caught:
        await connect(server, library_kind)
    assert "KRL" in caught.value.why


@pytest.mark.parametrize(
    "line",
    [
        "PubkeyAuthentication no",
        "PreferredAuthentications password,keyboard-interactive",
        "BindInterface lo",
        "RefuseConnection closed",
        "ProxyCommand -",
    ],
)
async def test_what_is_not_done_refuses_the_node(
    library_kind: TransportKind, make_sshd: MakeSshd, connect: Open, line: str
) -> None:
    """The keyword is named, and nothing is contacted."""
    server = make_sshd()
    demand(server, line)

    with pytest.raises(UsageError) as caught:
        await connect(server, library_kind)

    assert caught.value.id == "OR-SSH-028"
    assert line.split(maxsplit=1)[0] in caught.value.what
    assert str(server.ssh_config) in caught.value.where
    assert server.count_logged("Connection from") <= 1  # the start-up probe
