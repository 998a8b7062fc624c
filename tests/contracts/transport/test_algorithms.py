"""The algorithms that ssh_config names, with libraries that have others than OpenSSH."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.core.base.command import Command
from orchestrator.core.base.outcome import Exited
from orchestrator.core.model.inventory import TransportKind
from tests.contracts.transport.conftest import Open, refused
from tests.contracts.transport.relay import demand
from tests.contracts.transport.sshd import Sshd
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

MakeSshd = Callable[..., Sshd]


@pytest.mark.parametrize(
    "line",
    [
        "KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256",
        "KexAlgorithms curve25519-sha256",
        "KexAlgorithms +sntrup761x25519-sha512@openssh.com",
        "KexAlgorithms ^sntrup761x25519-sha512@openssh.com,ecdh-sha2-nistp256",
        "KexAlgorithms -diffie-hellman-*",
        "Ciphers chacha20-poly1305@openssh.com,aes256-ctr",
        "Ciphers ^aes256-ctr",
        "MACs umac-64-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-256",
        "HostKeyAlgorithms sk-ssh-ed25519@openssh.com,ssh-ed25519",
        "HostKeyAlgorithms ssh-*",
        "PubkeyAcceptedAlgorithms sk-ssh-ed25519@openssh.com,ssh-ed25519",
        "PubkeyAcceptedAlgorithms +ssh-rsa",
    ],
)
async def test_algorithms_that_the_library_lacks_are_passed_over(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, line: str
) -> None:
    """As long as one is left: OpenSSH connects with each of these."""
    server = make_sshd()
    demand(server, line)

    transport = await connect(server, ssh_kind)

    assert (await transport.run(Command(argv=("true",)), timeout_s=scaled(15))).outcome == Exited(0)


@pytest.mark.parametrize(
    "line", ["KexAlgorithms sntrup4591761x25519-sha512@tinyssh.org", "Ciphers -*"]
)
async def test_no_algorithm_is_left(
    library_kind: TransportKind, make_sshd: MakeSshd, connect: Open, line: str
) -> None:
    """What was wanted is named."""
    server = make_sshd()
    demand(server, line)

    error = await refused(connect, server, library_kind)

    assert error.id == "OR-SSH-006"
    assert line.split()[1] in error.why


@pytest.mark.parametrize(
    "line,cipher",
    [("Ciphers aes256-ctr", "aes256-ctr"), ("Ciphers ^aes192-ctr,aes256-ctr", "aes192-ctr")],
)
async def test_the_first_algorithm_is_used(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, line: str, cipher: str
) -> None:
    """The order is the file's."""
    server = make_sshd()
    demand(server, line)

    await connect(server, ssh_kind)

    assert server.count_logged(f"cipher: {cipher}") == 2


async def test_a_key_type_that_is_not_accepted_is_not_offered(
    library_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """PubkeyAcceptedAlgorithms leaves no key."""
    server = make_sshd()
    demand(server, "PubkeyAcceptedAlgorithms rsa-sha2-512")

    error = await refused(connect, server, library_kind)

    assert error.id == "OR-SSH-002"
    assert "no key" in error.why
    assert server.count_logged("Failed publickey") == 0
