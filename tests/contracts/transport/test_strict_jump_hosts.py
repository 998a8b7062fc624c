"""Jump hosts of the user's own ``ssh``: checked like the node itself, and never forgotten."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.transport.choose_transport import choose_transport
from orchestrator.adapters.transport.openssh.jump_hosts import Way, read_way
from orchestrator.adapters.transport.openssh.kept_sockets import claim_socket
from orchestrator.core.base.command import Command
from orchestrator.core.base.outcome import Exited
from orchestrator.core.model.inventory import NodeSpec, TransportKind
from tests.contracts.transport.conftest import QUICK, Open, refused
from tests.contracts.transport.sshd import USER, Sshd
from tests.time_limits import scaled

pytestmark = pytest.mark.processes
MakeSshd = Callable[..., Sshd]
OPENSSH = TransportKind.OPENSSH
# A name that no library has.
KEX = "KexAlgorithms diffie-hellman-nobody-has-this"


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Where sockets lie that no connection is behind."""
    runtime = Path("/tmp", f"or-{os.getpid()}-{tmp_path.name[-8:]}")
    runtime.mkdir(mode=0o700)
    yield {"XDG_RUNTIME_DIR": str(runtime)}
    subprocess.run(["rm", "-r", str(runtime)], check=True, timeout=scaled(10))


def behind(jump: Sshd, inner: Sshd, line: str = "", via: str = "") -> NodeSpec:
    """``inner`` through ``jump``, whose block ends with ``line``."""
    blocks = f"{inner.config_block()}  ProxyJump {via or jump.name}\n{jump.config_block()}"
    inner.ssh_config.write_text(f"{blocks}  {line}\n")
    return inner.node(OPENSSH)


async def works(connect: Open, spec: NodeSpec) -> None:
    transport = await connect(spec)
    done = await transport.run(Command(argv=("true",)), timeout_s=scaled(15))
    assert done.outcome == Exited(0)


def name_of(way: Way, environ: dict[str, str]) -> str:
    """What the connection is found again by."""
    claimed = claim_socket(way, environ)
    os.close(claimed.lock)
    return claimed.path.name


@pytest.mark.parametrize("checking", ["no", "accept-new"])
async def test_an_unknown_jump_host_is_refused(
    make_sshd: MakeSshd, connect: Open, checking: str
) -> None:
    """Whatever its block says; and its key is not written down."""
    jump, inner = make_sshd(name="jump"), make_sshd(name="inner")
    jump.known_hosts.write_text("")
    spec = behind(jump, inner, f"StrictHostKeyChecking {checking}")

    error = await refused(connect, spec, OPENSSH)

    assert error.id == "OR-SSH-008"
    assert "OR-SSH-003" in error.what
    assert jump.known_hosts.read_text() == ""
    assert jump.count_logged("Accepted publickey") == 0


@pytest.mark.parametrize("unknown", [0, 1])
async def test_each_of_a_chain_is_checked(make_sshd: MakeSshd, connect: Open, unknown: int) -> None:
    """The first one is as strict as the last."""
    jumps, inner = [make_sshd(name=name) for name in ("a", "b")], make_sshd(name="inner")
    spec = behind(jumps[0], inner, "StrictHostKeyChecking no", ",".join(j.name for j in jumps))
    with inner.ssh_config.open("a") as config:
        config.write(jumps[1].config_block() + "  StrictHostKeyChecking no\n")
    await works(connect, spec)
    jumps[unknown].known_hosts.write_text("")

    assert "OR-SSH-003" in (await refused(connect, spec, OPENSSH)).what
    assert jumps[unknown].known_hosts.read_text() == ""


async def test_a_jump_hosts_own_jump_host_is_checked(make_sshd: MakeSshd, connect: Open) -> None:
    """ssh_config leads from one to the next."""
    far, near, inner = (make_sshd(name=name) for name in ("far", "near", "inner"))
    spec = behind(near, inner, f"ProxyJump {far.name}")
    with inner.ssh_config.open("a") as config:
        config.write(far.config_block() + "  StrictHostKeyChecking no\n")
    await works(connect, spec)
    far.known_hosts.write_text("")

    assert "OR-SSH-003" in (await refused(connect, spec, OPENSSH)).what
    assert far.known_hosts.read_text() == ""


async def test_user_and_port_of_a_jump_host(make_sshd: MakeSshd, connect: Open) -> None:
    """They win over its block; a token is the node's."""
    jump, inner = make_sshd(name="jump"), make_sshd(name="inner")
    spec = behind(jump, inner, via=f"%r@{jump.name}:{jump.port}")
    text = inner.ssh_config.read_text()
    block = jump.config_block().replace(f"Port {jump.port}", "Port 1").replace(USER, "nobody", 1)
    inner.ssh_config.write_text(text.replace(jump.config_block(), block))

    await works(connect, spec)


async def test_known_hosts_of_the_inventory_are_for_the_jump_host_too(
    make_sshd: MakeSshd, connect: Open, tmp_path: Path
) -> None:
    """A file with a blank and a percent sign in its name."""
    jump, inner = make_sshd(name="jump"), make_sshd(name="inner")
    spec = behind(jump, inner)
    known = tmp_path / "known 100%h"
    known.write_text(jump.known_hosts.read_text() + inner.known_hosts.read_text())
    jump.known_hosts.write_text("")
    as_option = str(known).replace("%", "%%")
    spec = replace(spec, ssh=replace(spec.ssh, known_hosts=as_option))

    await works(connect, spec)


async def test_an_address_of_version_6(tmp_path: Path) -> None:
    """Brackets are for the notation, not for ssh; a login that may ask lets jump hosts ask."""
    config = tmp_path / "config"
    config.write_text("Host n\n  ProxyJump me@[::1]:2222\n")
    spec = Sshd(tmp_path / "n").node(OPENSSH)
    way = await read_way(replace(spec.ssh, host="n", ssh_config=str(config)), scaled(10))

    words = way.words(QUICK, asks=True)

    (proxy,) = (word for word in words if word.startswith("ProxyCommand="))
    jump = shlex.split(proxy.partition("=")[2])
    assert jump[-7:] == ["-F", str(config), "-p", "2222", "-W", "[%h]:%p", "me@::1"]
    assert {"BatchMode=no", "StrictHostKeyChecking=ask"} <= set(jump)
    assert {"BatchMode=no", "StrictHostKeyChecking=ask"} <= set(words)


async def test_a_revoked_key_ends_the_use_of_a_connection(
    make_sshd: MakeSshd, environ: dict[str, str]
) -> None:
    """What the file holds counts, not its name alone."""
    server = make_sshd(start=False)
    revoked = server.root / "revoked keys"
    revoked.write_text("")
    server.ssh_config.write_text(f'{server.config_block()}  RevokedHostKeys "{revoked}"\n')
    before = name_of(await read_way(server.node().ssh, scaled(10)), environ)

    revoked.write_text((server.root / "host_key.pub").read_text())

    assert name_of(await read_way(server.node().ssh, scaled(10)), environ) != before


async def test_known_hosts_with_a_blank_in_their_name(
    make_sshd: MakeSshd, environ: dict[str, str]
) -> None:
    """``ssh -G`` prints it as two."""
    server = make_sshd(start=False)
    known = server.root / "known hosts"
    known.write_text(server.known_hosts.read_text())
    block = server.config_block().replace(str(server.known_hosts), f'"{known}"')
    server.ssh_config.write_text(block)
    before = name_of(await read_way(server.node().ssh, scaled(10)), environ)

    known.write_text("")

    assert name_of(await read_way(server.node().ssh, scaled(10)), environ) != before


async def test_what_changes_at_a_jump_host_makes_a_new_connection(
    make_sshd: MakeSshd, environ: dict[str, str]
) -> None:
    """Its configuration, and the keys that it may show."""
    jump, inner = make_sshd(name="jump", start=False), make_sshd(name="inner", start=False)
    names = [name_of(await read_way(behind(jump, inner).ssh, scaled(10)), environ)]
    spec = behind(jump, inner, "HostKeyAlias other")
    names.append(name_of(await read_way(spec.ssh, scaled(10)), environ))
    jump.known_hosts.write_text("")
    names.append(name_of(await read_way(spec.ssh, scaled(10)), environ))

    assert len(set(names)) == 3
    assert name_of(await read_way(spec.ssh, scaled(10)), environ) == names[-1]


async def test_a_failed_proxy_command_is_quoted(make_sshd: MakeSshd, connect: Open) -> None:
    """Its words, without those of ssh about the end of it."""
    server = make_sshd(start=False)
    proxy = "  ProxyCommand sh -c 'echo no such relay >&2; exit 1'\n"
    server.ssh_config.write_text(server.config_block() + proxy)

    error = await refused(connect, server, OPENSSH)

    assert (error.id, error.why) == ("OR-SSH-012", "ssh says: no such relay")


@pytest.mark.parametrize("line", ["KnownHostsCommand /bin/true", "BindInterface lo", KEX])
def test_auto_takes_ssh_for_a_jump_host(make_sshd: MakeSshd, line: str) -> None:
    """What a library does not do on the way, it does not do."""
    jump, inner = make_sshd(name="jump", start=False), make_sshd(name="inner", start=False)
    spec = replace(behind(jump, inner, line), transport=TransportKind.AUTO)

    assert choose_transport(spec) == (OPENSSH, line)


def test_auto_takes_ssh_for_a_binary_revocation_list(make_sshd: MakeSshd) -> None:
    """A text file does not need it."""
    server = make_sshd(start=False)
    revoked = server.root / "revoked"
    server.ssh_config.write_text(f"{server.config_block()}  RevokedHostKeys {revoked}\n")
    spec = server.node(TransportKind.AUTO)
    revoked.write_text("")
    assert choose_transport(spec) == (TransportKind.ASYNCSSH, "")

    keys = str(server.root / "host_key.pub")
    subprocess.run(["ssh-keygen", "-qkf", str(revoked), keys], check=True, timeout=scaled(10))

    assert choose_transport(spec) == (OPENSSH, f"RevokedHostKeys {revoked}")


@pytest.mark.parametrize(
    "line, kind",
    [
        ("KexAlgorithms diffie-hellman-nobody-has-this,curve25519-sha256", TransportKind.ASYNCSSH),
        (KEX, OPENSSH),
        ("PubkeyAcceptedAlgorithms nobody-has-this", OPENSSH),
    ],
)
def test_auto_takes_ssh_where_asyncssh_has_no_algorithm(
    make_sshd: MakeSshd, line: str, kind: TransportKind
) -> None:
    """One that is left is enough."""
    server = make_sshd(start=False)
    server.ssh_config.write_text(f"{server.config_block()}  {line}\n")

    reason = line if kind is OPENSSH else ""
    assert choose_transport(server.node(TransportKind.AUTO)) == (kind, reason)


async def test_auto_agrees_on_what_asyncssh_may_lack(make_sshd: MakeSshd, connect: Open) -> None:
    """asyncssh has this method only where a C library is installed."""
    server = make_sshd()
    kex = "KexAlgorithms sntrup761x25519-sha512@openssh.com"
    server.ssh_config.write_text(f"{server.config_block()}  {kex}\n")

    await works(connect, server.node(TransportKind.AUTO))
