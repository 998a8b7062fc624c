"""Connections of the user's own ``ssh``: kept for the next command, and for nobody else."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.private_sockets import sockets_folder
from orchestrator.adapters.transport.choose_transport import choose_transport
from orchestrator.adapters.transport.kept_time import KEEP_VARIABLE, kept_seconds
from orchestrator.adapters.transport.openssh.kept_sockets import (
    end_master,
    kept_connections,
)
from orchestrator.adapters.transport.transport import ChannelClosed, Transport
from orchestrator.core.base.command import Command
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.outcome import Exited
from orchestrator.core.model.inventory import TransportKind
from tests.contracts.transport.conditions import until
from tests.contracts.transport.conftest import QUICK, Open, refused
from tests.contracts.transport.sshd import Sshd, make_key, public_half
from tests.time_limits import scaled

pytestmark = pytest.mark.processes
MakeSshd = Callable[..., Sshd]
OPENSSH = TransportKind.OPENSSH


@pytest.fixture(autouse=True)
def kept(nothing_kept: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Connections stay, in a folder of the test's own; all of them end with the test."""
    del nothing_kept
    runtime = Path("/tmp", f"or-{os.getpid()}-{tmp_path.name[-8:]}")
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv(KEEP_VARIABLE, "60")
    yield runtime / "orchestrate"
    for socket in kept_sockets():
        end_master(socket)
    subprocess.run(["rm", "-r", str(runtime)], check=True, timeout=scaled(10))


async def says(transport: Transport, word: str = "ok") -> None:
    done = await transport.run(Command(argv=("echo", word)), timeout_s=scaled(15))
    assert (done.outcome, done.stdout) == (Exited(0), f"{word}\n".encode())


def kept_sockets() -> list[Path]:
    return [each.path for each in kept_connections(os.environ)]


def logins(server: Sshd) -> int:
    return server.count_logged("Accepted publickey")


async def test_the_next_command_finds_the_connection(make_sshd: MakeSshd, connect: Open) -> None:
    """One login for commands that follow each other, in a socket that only the user can open."""
    server = make_sshd()
    for _ in range(3):
        transport = await connect(server, OPENSSH)
        await says(transport)
        await transport.close()

    assert logins(server) == 1
    (held,) = kept_connections(os.environ)
    assert held.words == f"-F {server.ssh_config} {server.name}"
    assert not held.in_use
    assert stat.S_IMODE(held.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(held.path.parent.stat().st_mode) == 0o700


async def test_commands_at_the_same_time_do_not_share(make_sshd: MakeSshd, connect: Open) -> None:
    """sshd's limit of sessions is for each; and what one cuts, the other does not feel."""
    server = make_sshd()
    one, other = [await connect(server, OPENSSH) for _ in range(2)]
    assert len(kept_sockets()) == logins(server) == 2

    assert all(held.in_use for held in kept_connections(os.environ))

    one.cut()

    await says(other)


async def test_a_connection_that_is_not_kept_ends(
    make_sshd: MakeSshd, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Switched off: the command's end is the connection's."""
    monkeypatch.setenv(KEEP_VARIABLE, "0")
    server = make_sshd()
    transport = await connect(server, OPENSSH)
    await says(transport)

    await transport.close()

    assert kept_sockets() == []
    await until(lambda: server.session_pids() == [], what="the end of the connection")


async def test_what_changes_makes_a_new_connection(
    make_sshd: MakeSshd, connect: Open, tmp_path: Path
) -> None:
    """The configuration and the known hosts are those of now, not those of the last login."""
    server = make_sshd()
    await (await connect(server, OPENSSH)).close()
    server.ssh_config.write_text(server.config_block() + "  SetEnv A=b\n")
    await (await connect(server, OPENSSH)).close()
    assert logins(server) == 2

    other = make_key(tmp_path / "other")
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {public_half(other)}\n")
    assert (await refused(connect, server, OPENSSH)).id == "OR-SSH-004"


async def test_a_master_that_was_killed_is_replaced(make_sshd: MakeSshd, connect: Open) -> None:
    """Its socket stays behind; what ran on it is lost, never a success."""
    server = make_sshd()
    transport = await connect(server, OPENSSH)
    process = await transport.start(Command(argv=("sleep", "60")), timeout_s=scaled(15))
    (socket,) = kept_sockets()
    os.kill(master_pid(socket), signal.SIGKILL)

    outcome = await process.wait(scaled(15))

    assert "Lost" in repr(outcome)
    with pytest.raises(ChannelClosed):
        await transport.start(Command(argv=("true",)), timeout_s=scaled(5))
    assert socket.exists()
    await transport.close()
    await says(await connect(server, OPENSSH))
    assert logins(server) == 2


def master_pid(socket: Path) -> int:
    done = subprocess.run(
        ["ssh", "-S", str(socket), "-O", "check", "x"],
        capture_output=True,
        text=True,
        check=True,
        timeout=scaled(10),
    )
    return int(done.stderr.partition("pid=")[2].partition(")")[0])


async def test_a_users_own_master_is_used_and_left(
    make_sshd: MakeSshd, connect: Open, kept: Path
) -> None:
    """Who has logged in, with whatever that took, is not asked again."""
    server = make_sshd()
    control = kept.parent / "mine"
    server.ssh_config.write_text(server.config_block() + f"  ControlPath {control}\n")
    login = ["ssh", "-F", str(server.ssh_config), "-MNf", server.name]
    await asyncio.to_thread(subprocess.run, login, check=True, timeout=scaled(15))
    (server.home / ".ssh" / "authorized_keys").unlink()

    transport = await connect(server, OPENSSH)
    await says(transport)
    await transport.close()

    assert control.is_socket()
    assert logins(server) == 1
    assert end_master(control)
    assert (await refused(connect, server, OPENSSH)).id == "OR-SSH-002"


async def test_ssh_does_what_no_library_does(make_sshd: MakeSshd, connect: Open) -> None:
    """A key from KnownHostsCommand, a 'Match exec' with the user's shell."""
    server = make_sshd()
    line = server.known_hosts.read_text().strip()
    server.known_hosts.write_text("")
    server.ssh_config.write_text(
        f"Match host {server.name} exec true\n  KnownHostsCommand /bin/echo {line}\n"
        + server.config_block()
    )

    await says(await connect(server, OPENSSH))


@pytest.mark.parametrize(
    "line, kind",
    [
        ("", TransportKind.ASYNCSSH),
        ("KnownHostsCommand /bin/true", OPENSSH),
        ("BindInterface lo", OPENSSH),
        ("PKCS11Provider /nonexistent.so", OPENSSH),
    ],
)
async def test_auto_takes_ssh_where_a_library_would_not_do(
    make_sshd: MakeSshd, connect: Open, line: str, kind: TransportKind
) -> None:
    """With the keyword that decides as the reason."""
    server = make_sshd()
    server.ssh_config.write_text(f"{server.config_block()}  {line}\n")
    spec = server.node(TransportKind.AUTO)

    assert choose_transport(spec) == (kind, line)

    await says(await connect(spec))
    assert len(kept_sockets()) == (kind is OPENSSH)


async def test_a_configuration_that_ssh_refuses(make_sshd: MakeSshd, connect: Open) -> None:
    """Its own words, and nothing is contacted."""
    server = make_sshd()
    server.ssh_config.write_text(server.config_block() + "  NoSuchKeyword yes\n")

    with pytest.raises(UsageError) as caught:
        await connect(server, OPENSSH)

    assert caught.value.id == "OR-SSH-014"
    assert "nosuchkeyword" in caught.value.why.lower()
    assert logins(server) == 0


async def test_a_server_that_is_silent(make_sshd: MakeSshd, connect: Open) -> None:
    """A stopped sshd answers nothing: the link is given up although its master waits on."""
    server = make_sshd()
    transport = await connect(server, OPENSSH, replace(QUICK, keepalive_count=2))
    process = await transport.start(Command(argv=("sleep", "60")), timeout_s=scaled(15))
    for pid in server.session_pids():
        os.kill(pid, signal.SIGSTOP)

    outcome = await process.wait(scaled(15))

    assert "no sign of life" in repr(outcome)


@pytest.mark.parametrize("text, seconds", [("", 600), (" 0", 0), ("90", 90), ("86400", 86_400)])
def test_how_long_a_connection_stays(text: str, seconds: int) -> None:
    """Seconds in a variable."""
    assert kept_seconds({KEEP_VARIABLE: text}) == seconds


@pytest.mark.parametrize("text", ["ten", "1e3", "-1", "86401"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    """Rather than taken for something else."""
    with pytest.raises(UsageError, match=KEEP_VARIABLE):
        kept_seconds({KEEP_VARIABLE: text})


def test_sockets_lie_where_their_path_is_short_enough(tmp_path: Path) -> None:
    """A socket's path has 104 bytes at most, wherever the home is."""
    home = tmp_path / ("h" * 90)
    folder = sockets_folder({"ORCHESTRATE_HOME": str(home), "XDG_RUNTIME_DIR": f"{tmp_path}/none"})
    assert folder.name == f"orchestrate-{os.geteuid()}"


async def test_nobody_else_gets_in(make_sshd: MakeSshd, connect: Open) -> None:
    """Another user reaches neither the socket nor the folder; theirs is not taken for ours."""
    await says(await connect(make_sshd(), OPENSSH))
    (socket,) = kept_sockets()
    attempt = f"import socket; socket.socket(socket.AF_UNIX).connect({str(socket)!r})"

    done = await asyncio.to_thread(
        subprocess.run,
        ["python3", "-I", "-c", attempt],
        user="nobody",
        capture_output=True,
        text=True,
        timeout=scaled(15),
    )

    assert done.returncode == 1
    assert "PermissionError" in done.stderr
    os.chown(socket.parent, pwd.getpwnam("nobody").pw_uid, -1)
    try:
        with pytest.raises(UsageError) as caught:
            sockets_folder(os.environ)
    finally:
        os.chown(socket.parent, os.geteuid(), -1)
    assert caught.value.id == "OR-STORE-011"


@pytest.fixture
def full_disk(kept: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The sockets' folder, on a disk without a free byte, or without a free inode."""
    kept.mkdir(mode=0o700)
    mounted = ["mount", "-t", "tmpfs", "-o", f"{request.param},mode=700", "tmpfs", str(kept)]
    subprocess.run(mounted, check=True, timeout=scaled(10))
    (kept / "filler").write_bytes(bytes(4096) if "size" in request.param else b"")
    yield kept
    for socket in kept_sockets():
        end_master(socket)
    subprocess.run(["umount", "-l", str(kept)], check=True, timeout=scaled(10))


@pytest.mark.parametrize("full_disk", ["size=4k"], indirect=True)
async def test_no_free_byte_under_the_sockets(
    make_sshd: MakeSshd, connect: Open, full_disk: Path
) -> None:
    """A connection needs none; only the note for ``connections list`` is missing."""
    await says(await connect(make_sshd(), OPENSSH))
    (held,) = kept_connections(os.environ)
    assert (held.words, held.path.parent) == ("", full_disk)


@pytest.mark.parametrize("full_disk", ["nr_inodes=2"], indirect=True)
async def test_no_free_inode_under_the_sockets(
    make_sshd: MakeSshd, connect: Open, full_disk: Path
) -> None:
    error = await refused(connect, make_sshd(), OPENSSH)
    assert error.id == "OR-SSH-016"
    assert str(full_disk) in str(error)
