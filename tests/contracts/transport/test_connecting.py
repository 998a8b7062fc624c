"""Connecting: trust, keys, jump hosts, crowds, and errors that say what to do."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.transport.open_transport import TRANSPORTS
from orchestrator.core.base.command import Command
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.base.outcome import Exited
from orchestrator.core.model.inventory import NodeSpec, SshEndpoint, TransportKind
from tests.contracts.transport.conditions import is_listening, until
from tests.contracts.transport.conftest import QUICK, Open, refused
from tests.contracts.transport.sshd import USER, Sshd, free_port, make_key, public_half
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

MakeSshd = Callable[..., Sshd]


async def test_unknown_host_keys_are_refused(
    library_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """A host that no file knows is not trusted, whatever ssh_config says; the key is shown."""
    server = make_sshd()
    server.known_hosts.write_text("")
    server.ssh_config.write_text(server.config_block() + "  StrictHostKeyChecking no\n")

    error = await refused(connect, server, library_kind)

    assert error.id == "OR-SSH-003"
    assert fingerprint(server.host_key) in error.why
    assert f"-f {server.known_hosts})" in error.why
    assert server.count_logged("Accepted publickey") == 0


async def test_changed_host_keys_are_refused(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, tmp_path: Path
) -> None:
    """Both fingerprints are named, and no key of ours is offered."""
    server = make_sshd()
    other = make_key(tmp_path / "other")
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {public_half(other)}\n")

    error = await refused(connect, server, ssh_kind)

    assert error.id == "OR-SSH-004"
    assert fingerprint(server.host_key) in error.why
    assert str(server.known_hosts) in error.why
    assert "ssh-keygen -R" in error.remedy
    if ssh_kind is not TransportKind.OPENSSH:
        assert fingerprint(other) in error.why
        assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in error.remedy
    assert server.count_logged("Accepted publickey") == 0


async def test_revoked_host_keys_are_refused(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """``@revoked`` overrules a line that trusts the same key."""
    server = make_sshd()
    line = f"[127.0.0.1]:{server.port} {public_half(server.host_key)}\n"
    server.known_hosts.write_text(f"{line}@revoked * {public_half(server.host_key)}\n")

    error = await refused(connect, server, ssh_kind)

    assert error.id == "OR-SSH-010"


async def test_hashed_known_hosts(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """Lines that ``ssh-keygen -H`` made trust the same hosts."""
    server = make_sshd()
    command = ["ssh-keygen", "-q", "-H", "-f", str(server.known_hosts)]
    await asyncio.to_thread(
        subprocess.run, command, check=True, timeout=scaled(10), capture_output=True
    )
    assert "127.0.0.1" not in server.known_hosts.read_text()

    await connect(server, ssh_kind)


async def test_host_certificates(make_sshd: MakeSshd, connect: Open, tmp_path: Path) -> None:
    """A host whose certificate a known authority signed is trusted (asyncssh)."""
    authority = make_key(tmp_path / "authority")
    server = make_sshd(start=False)
    sign(authority, server.host_key, "-h", "-n", "127.0.0.1")
    server.options = (f"HostCertificate {server.host_key}-cert.pub",)
    server.known_hosts.write_text(f"@cert-authority * {public_half(authority)}\n")
    server.start()

    await connect(server)


async def test_user_certificates(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, tmp_path: Path
) -> None:
    """A key is offered with the certificate that lies beside it."""
    authority = make_key(tmp_path / "authority")
    server = make_sshd(start=False)
    (server.home / ".ssh" / "authorized_keys").unlink()
    sign(authority, server.client_key, "-n", USER)
    server.options = (f"TrustedUserCAKeys {authority}.pub",)
    server.start()

    await connect(server, ssh_kind)


async def test_a_wrong_key_is_tried_once(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, tmp_path: Path
) -> None:
    """Refused authentication is not retried: sites lock accounts."""
    server = make_sshd()
    wrong = make_key(tmp_path / "wrong")
    server.ssh_config.write_text(server.config_block().replace(str(server.client_key), str(wrong)))

    error = await refused(connect, server, ssh_kind)

    assert error.id == "OR-SSH-002"
    pasted = f"ssh -F {server.ssh_config} {server.name} true"
    assert pasted in error.remedy
    assert server.count_logged("Connection from") - 1 == 1  # the first was the start-up probe
    assert server.count_logged("Failed publickey") == 1


async def test_no_key_at_all(
    library_kind: TransportKind, make_sshd: MakeSshd, connect: Open, tmp_path: Path
) -> None:
    """Without a key there is nothing to offer, and the message says so."""
    server = make_sshd()
    missing = tmp_path / "missing"
    server.ssh_config.write_text(
        server.config_block().replace(str(server.client_key), str(missing))
    )

    error = await refused(connect, server, library_kind)

    assert error.id == "OR-SSH-002"
    assert "no key" in error.why


async def test_the_agent_signs(
    ssh_kind: TransportKind,
    make_sshd: MakeSshd,
    connect: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key that only the agent can use gets in."""
    server = make_sshd()
    address = tmp_path / "agent"
    agent = await asyncio.create_subprocess_exec(
        "ssh-agent", "-D", "-a", str(address), stdout=subprocess.DEVNULL
    )
    try:
        await until(lambda: is_listening(address), what="the agent's socket")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
        add = ["ssh-add", "-q", str(server.client_key)]
        await asyncio.to_thread(subprocess.run, add, check=True, timeout=scaled(10))
        server.client_key.unlink()
        server.ssh_config.write_text(server.config_block().replace("IdentityAgent none", ""))

        await connect(server, ssh_kind)
    finally:
        agent.kill()
        await agent.wait()


async def test_an_unknown_name(ssh_kind: TransportKind, connect: Open) -> None:
    """A name that does not resolve."""
    spec = NodeSpec(
        name="n",
        transport=ssh_kind,
        ssh=SshEndpoint(host="no-such-host.invalid", ssh_config="none"),
    )

    assert (await refused(connect, spec, ssh_kind)).id == "OR-SSH-005"


async def test_a_closed_port(ssh_kind: TransportKind, connect: Open) -> None:
    """Nobody listens."""
    endpoint = SshEndpoint(host="127.0.0.1", port=free_port(), ssh_config="none")
    spec = NodeSpec(name="n", transport=ssh_kind, ssh=endpoint)

    assert (await refused(connect, spec, ssh_kind)).id == "OR-SSH-001"


async def test_nothing_in_common(
    library_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """No common cipher: the message names the other library."""
    server = make_sshd(options=("Ciphers aes192-cbc",))
    server.ssh_config.write_text(server.config_block() + "  Ciphers aes256-ctr\n")
    if library_kind is TransportKind.PARAMIKO:
        server.stop()
        server.options = ("KexAlgorithms sntrup761x25519-sha512@openssh.com",)
        server.start()

    error = await refused(connect, server, library_kind)

    assert error.id == "OR-SSH-006"
    assert "transport:" in error.remedy


async def test_a_crowd_at_one_server(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """Twenty connections to a server that takes three strangers at a time all succeed."""
    server = make_sshd(options=("MaxStartups 3:100:3",))
    # How many attempts it takes hangs on the machine's load.
    limits = replace(QUICK, attempts=100, connect_timeout_s=scaled(10))

    async with asyncio.TaskGroup() as group:
        crowd = [group.create_task(connect(server, ssh_kind, limits)) for _ in range(20)]
    transports = [one.result() for one in crowd]

    results = await asyncio.gather(
        *(t.run(Command(argv=("true",)), timeout_s=scaled(15)) for t in transports)
    )
    assert {r.outcome for r in results} == {Exited(0)}


async def test_a_server_that_hangs_up_is_retried_a_few_times(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """Closed during the handshake: tried again, but not for ever."""
    hung_up = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hung_up
        hung_up += 1
        writer.close()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with listener:
        endpoint = SshEndpoint(
            host="127.0.0.1", port=listener.sockets[0].getsockname()[1], ssh_config="none"
        )
        spec = NodeSpec(name="n", transport=ssh_kind, ssh=endpoint)
        with pytest.raises(PreflightError) as caught:
            await connect(spec, ssh_kind, replace(QUICK, attempts=3))

    assert caught.value.id == "OR-SSH-007"
    assert hung_up == 3


def fingerprint(key: Path) -> str:
    command = ["ssh-keygen", "-l", "-f", f"{key}.pub"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=scaled(10))
    return done.stdout.split()[1]


def sign(authority: Path, key: Path, *options: str) -> None:
    command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "test", *options, f"{key}.pub"]
    subprocess.run(command, check=True, timeout=scaled(10))


def test_every_kind_of_transport_has_an_opener() -> None:
    """The registry is complete: what an inventory may say can be opened."""
    assert set(TRANSPORTS) == set(TransportKind)
