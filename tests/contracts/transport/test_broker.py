"""The broker: connections of the default transport stay for the next command of their user."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.transport.asyncssh.async_ssh import AsyncSshTransport
from orchestrator.adapters.transport.broker import attach, find_broker
from orchestrator.adapters.transport.broker.broker_messages import (
    connection_key,
    read_target,
    write_target,
)
from orchestrator.adapters.transport.broker.look import broker_connections
from orchestrator.adapters.transport.broker.pool import FRESH_S, MOST_WAITING, Pool
from orchestrator.adapters.transport.kept_time import KEEP_VARIABLE
from orchestrator.adapters.transport.multiplex.multiplex_transport import MultiplexTransport
from orchestrator.adapters.transport.ssh.target import resolve_target
from orchestrator.adapters.transport.transport import Transport
from orchestrator.cli.main import main
from orchestrator.core.base.command import Command
from orchestrator.core.base.outcome import Exited, Lost
from tests.contracts.transport.brokers import begin_broker, broker_of_its_own, broker_pid
from tests.contracts.transport.conditions import until
from tests.contracts.transport.conftest import QUICK, Open, refused
from tests.contracts.transport.sshd import Sshd, make_key, public_half
from tests.time_limits import scaled

pytestmark = pytest.mark.processes
MakeSshd = Callable[..., Sshd]
SLEEPS = Command(argv=("sleep", "60"))


@pytest.fixture(autouse=True)
def kept(nothing_kept: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A broker, and the folder of its socket."""
    del nothing_kept
    with broker_of_its_own(monkeypatch) as folder:
        yield folder


async def says(transport: Transport, word: str = "ok") -> None:
    done = await transport.run(Command(argv=("echo", word)), timeout_s=scaled(15))
    assert (done.outcome, done.stdout) == (Exited(0), f"{word}\n".encode())


async def one_command(connect: Open, server: Sshd) -> Transport:
    """A command from its first moment to its last."""
    transport = await connect(server)
    await says(transport)
    await transport.close()
    return transport


def logins(server: Sshd) -> int:
    return server.count_logged("Accepted publickey")


def waiting() -> list[str]:
    return [each.name for each in broker_connections(os.environ) if not each.in_use]


async def test_the_next_command_finds_the_connection(
    make_sshd: MakeSshd, connect: Open, kept: Path
) -> None:
    """One login for commands that follow each other, in a socket that only the user can open."""
    server = make_sshd()
    for _ in range(3):
        assert isinstance(await one_command(connect, server), MultiplexTransport)

    assert logins(server) == 1
    (held,) = broker_connections(os.environ)
    assert held.words == f"-F {server.ssh_config} {server.name}"
    assert mode_of(held.path) == 0o600
    assert mode_of(kept) == 0o700
    assert words_of(broker_pid()).startswith(b"orchestrate: kept connections")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def words_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


async def test_commands_at_the_same_time_do_not_share(make_sshd: MakeSshd, connect: Open) -> None:
    """So that none can take another's sessions, or harm it."""
    server = make_sshd()
    first, second = await asyncio.gather(connect(server), connect(server))
    await says(first)
    await says(second)
    assert logins(server) == 2


async def test_a_connection_that_is_not_kept_ends(
    make_sshd: MakeSshd, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the switch off no broker is asked, though one runs."""
    monkeypatch.setenv(KEEP_VARIABLE, "0")
    assert isinstance(await one_command(connect, make_sshd()), AsyncSshTransport)
    assert broker_connections(os.environ) == []


@pytest.mark.parametrize("changed", ["ssh_config", "known_hosts", "client_key"])
async def test_what_changes_makes_a_new_connection(
    make_sshd: MakeSshd, connect: Open, changed: str
) -> None:
    """What a connection was made of is what a new one would be made of, or it is not lent."""
    server = make_sshd()
    await one_command(connect, server)
    change(getattr(server, changed), "  Ciphers +aes128-cbc\n" if changed == "ssh_config" else "\n")
    await one_command(connect, server)
    assert logins(server) == 2


def change(file: Path, more: str) -> None:
    file.write_text(file.read_text() + more)


async def test_a_host_key_that_is_not_known_any_more_is_refused(
    make_sshd: MakeSshd, connect: Open, tmp_path: Path
) -> None:
    """As a new connection would be, though the old one lives."""
    server = make_sshd()
    await one_command(connect, server)
    other = public_half(make_key(tmp_path / "other"))
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {other}\n")

    error = await refused(connect, server, server.node().transport)

    assert error.id == "OR-SSH-004"
    assert "ssh-keygen -R" in error.remedy


async def test_a_broker_that_is_killed_in_mid_command(make_sshd: MakeSshd, connect: Open) -> None:
    """The command is lost, never a success; the next one connects, and a later one has a broker."""
    server = make_sshd()
    transport = await connect(server)
    process = await transport.start(SLEEPS, timeout_s=scaled(15))
    os.kill(broker_pid(), signal.SIGKILL)

    assert isinstance(await process.wait(scaled(15)), Lost)

    assert isinstance(await one_command(connect, server), AsyncSshTransport)
    begin_broker()
    await asyncio.to_thread(asyncio.run, _in_a_new_command(server))
    assert logins(server) == 3


async def _in_a_new_command(server: Sshd) -> None:
    from orchestrator.adapters.transport.open_transport import open_transport

    transport = await open_transport(server.node(), limits=QUICK)
    assert isinstance(transport, MultiplexTransport)
    await says(transport)
    await transport.close()


async def test_a_broker_that_hangs_holds_nobody_up(
    make_sshd: MakeSshd, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command connects by itself."""
    monkeypatch.setattr(attach, "SILENCE_S", 0.2)
    os.kill(broker_pid(), signal.SIGSTOP)
    assert isinstance(await one_command(connect, make_sshd()), AsyncSshTransport)


async def test_a_command_that_is_killed_takes_its_connection_with_it(
    make_sshd: MakeSshd, connect: Open
) -> None:
    """What it left running may hold a session; the next command has all of its own."""
    server = make_sshd()
    transport = await connect(server)
    await transport.start(SLEEPS, timeout_s=scaled(15))
    transport.cut()
    await until(lambda: broker_connections(os.environ) == [], what="the connection ends")
    await until(lambda: server.session_pids() == [], what="the server sees that, too")
    await one_command(connect, server)
    assert logins(server) == 2


async def test_a_server_that_began_anew_is_connected_to_anew(
    make_sshd: MakeSshd, connect: Open
) -> None:
    server = make_sshd()
    await one_command(connect, server)
    server.stop()
    server.start()
    await one_command(connect, server)
    assert logins(server) == 2


async def test_another_version_has_a_broker_of_its_own(
    make_sshd: MakeSshd, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an older one holds is not used, but seen and closed."""
    server = make_sshd()
    await one_command(connect, server)
    await until(lambda: bool(waiting()), what="one waits")
    held = waiting()
    monkeypatch.setattr(find_broker, "_world_and_code", lambda: "0123456789ab")
    assert isinstance(await one_command(connect, server), AsyncSshTransport)
    assert waiting() == held
    assert main(["connections", "close"]) == 0
    assert waiting() == []
    monkeypatch.undo()


@pytest.mark.parametrize("of", ["/proc/self/cgroup", "/proc/self/limits"])
def test_what_ends_or_binds_a_broker_is_that_of_its_commands(
    of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that ends takes its control group along; a limit on processor time ends it."""
    named = find_broker._world_and_code.__wrapped__
    before = named()
    read = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: b"another" if str(path) == of else read(path)
    )
    assert named() != before


async def test_each_session_has_the_environment_of_its_command(
    make_sshd: MakeSshd, connect: Open
) -> None:
    """SetEnv is of sessions: another value needs no other connection."""
    server = make_sshd(options=("AcceptEnv *",))
    for value in ("one", "two"):
        server.ssh_config.write_text(f"{server.config_block()}  SetEnv WORD={value}\n")
        transport = await connect(server)
        done = await transport.run(Command(argv=("printenv", "WORD")), timeout_s=scaled(15))
        assert done.stdout == f"{value}\n".encode()
        await transport.close()
    assert logins(server) == 1


async def test_connections_are_listed_and_closed(
    make_sshd: MakeSshd, connect: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that wait end at once; one in use goes on, and ends with its command."""
    server = make_sshd()
    busy, idle = await connect(server), await connect(server)
    process = await busy.start(Command(argv=("cat",)), timeout_s=scaled(15))
    await idle.close()
    await until(lambda: len(waiting()) == 1, what="one waits")
    assert main(["connections", "list"]) == 0
    assert "in use" in capsys.readouterr().out
    assert main(["connections", "close"]) == 0
    (left,) = broker_connections(os.environ)
    capsys.readouterr()
    assert main(["connections", "close", left.name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["closed"] == []

    await process.write(b"still here\n")
    assert await process.read_line(100) == b"still here\n"
    await process.close_stdin()
    assert await process.wait(scaled(15)) == Exited(0)
    await busy.close()
    await until(lambda: broker_connections(os.environ) == [], what="it ends with its command")
    pid, folder = broker_pid(), find_broker.broker_path(os.environ).parent
    assert main(["connections", "close"]) == 0
    await until(lambda: not Path(f"/proc/{pid}").exists(), what="nothing is held: it ends, too")
    assert list(folder.glob("broker-*")) == []


def test_nobody_else_gets_in(kept: Path) -> None:
    """Whatever became of the folder's mode: the broker asks the kernel who connects."""
    (socket,) = [path for path in kept.iterdir() if path.is_socket()]
    kept.parent.chmod(0o711)
    kept.chmod(0o711)
    socket.chmod(0o666)
    attempt = (
        f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(socket)!r})\n"
        "print(s.recv(100))"
    )
    done = subprocess.run(
        ["python3", "-I", "-c", attempt],
        user="nobody",
        capture_output=True,
        text=True,
        timeout=scaled(15),
        check=False,
    )
    assert done.stdout == "b''\n" or "ConnectionReset" in done.stderr


def open_to_others(folder: Path) -> None:
    folder.chmod(0o750)


def without_inodes(folder: Path) -> None:
    os.kill(broker_pid(), signal.SIGKILL)
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=1,mode=700", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, timeout=scaled(10))


def read_only(folder: Path) -> None:
    os.kill(broker_pid(), signal.SIGKILL)
    mount = ["mount", "-t", "tmpfs", "-o", "ro,mode=700", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, timeout=scaled(10))


def taken_by_a_file(folder: Path) -> None:
    os.kill(broker_pid(), signal.SIGKILL)
    (socket,) = [path for path in folder.iterdir() if path.is_socket()]
    socket.unlink()
    socket.mkdir()


@pytest.fixture(params=[open_to_others, without_inodes, read_only, taken_by_a_file])
def no_place(kept: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """No broker can be had: none may be asked, or none can listen."""
    request.param(kept)
    yield
    subprocess.run(["umount", "-q", "-l", str(kept)], check=False, timeout=scaled(10))
    kept.chmod(0o700)


async def test_without_a_place_for_sockets_it_works_as_without(
    make_sshd: MakeSshd, connect: Open, no_place: None
) -> None:
    """Not a word of it."""
    begin_broker()
    assert isinstance(await one_command(connect, make_sshd()), AsyncSshTransport)


async def test_a_stale_socket_is_replaced(make_sshd: MakeSshd, connect: Open) -> None:
    """What a broker left that was killed."""
    os.kill(broker_pid(), signal.SIGKILL)
    begin_broker()
    assert isinstance(await one_command(connect, make_sshd()), MultiplexTransport)


def test_what_a_command_inherited_is_not_kept_open() -> None:
    """A pipe that its caller reads to the end ends with the command, not with the broker."""
    os.kill(broker_pid(), signal.SIGKILL)
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    begin_broker(pass_fds=(writing,), stdout=writing, stderr=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b""
    assert broker_pid()


async def test_a_broker_whose_socket_is_gone_ends(kept: Path) -> None:
    """Nobody could find what it holds."""
    pid = broker_pid()
    remove_all(kept)
    await until(lambda: not Path(f"/proc/{pid}").exists(), what="it ends")


def remove_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


# What a pool lends again ------------------------------------------------------------------------


class Clocks:
    """Time as tests set it."""

    def __init__(self) -> None:
        self.awake_s = 1000.0
        self.asleep_s = 0.0

    def pool(self) -> Pool:
        return Pool(lambda: self.awake_s + self.asleep_s, lambda: self.awake_s)


Use = Callable[[], Coroutine[Any, Any, None]]


async def _used_once(pool: Pool, server: Sshd) -> Use:
    """A function that uses a connection to the server."""
    target = resolve_target(server.node().ssh)
    key = connection_key(target, write_target(target))

    async def use() -> None:
        kept = await pool.lend(key, target, QUICK, 60.0)
        await pool.take_back(kept, _as_it_was())

    await use()
    return use


async def end(pool: Pool) -> None:
    """And let asyncio close what it closes in its next turns."""
    await pool.end()
    for _ in range(3):
        await asyncio.sleep(0)


async def _as_it_was() -> bool:
    return True


@pytest.mark.parametrize("after_s, made", [(FRESH_S - 0.5, 1), (FRESH_S + 1, 1), (61.0, 2)])
async def test_a_connection_is_lent_for_as_long_as_it_is_to_stay(
    make_sshd: MakeSshd, after_s: float, made: int
) -> None:
    server, clocks = make_sshd(), Clocks()
    pool = clocks.pool()
    use = await _used_once(pool, server)
    clocks.awake_s += after_s
    await use()
    await end(pool)
    assert logins(server) == made


async def test_after_the_machine_slept_no_connection_is_lent_again(make_sshd: MakeSshd) -> None:
    """Nothing has to be waited for: the other side may have gone, or the network changed."""
    server, clocks = make_sshd(), Clocks()
    pool = clocks.pool()
    use = await _used_once(pool, server)
    clocks.asleep_s += 30.0
    await use()
    await end(pool)
    assert logins(server) == 2


async def test_a_connection_whose_server_is_silent_is_replaced(make_sshd: MakeSshd) -> None:
    server, clocks = make_sshd(), Clocks()
    pool = clocks.pool()
    use = await _used_once(pool, server)
    silent = server.session_pids()
    for pid in silent:
        os.kill(pid, signal.SIGSTOP)
    clocks.awake_s += FRESH_S + 1
    await use()
    for pid in silent:
        os.kill(pid, signal.SIGCONT)
    await end(pool)
    assert logins(server) == 2


async def test_a_command_that_goes_away_while_its_connection_is_asked_leaves_none(
    make_sshd: MakeSshd,
) -> None:
    """One that stayed lent to nobody would keep the broker for good."""
    server, clocks = make_sshd(), Clocks()
    pool = clocks.pool()
    await _used_once(pool, server)
    target = resolve_target(server.node().ssh)
    silent = server.session_pids()
    for pid in silent:
        os.kill(pid, signal.SIGSTOP)
    clocks.awake_s += FRESH_S + 1
    key = connection_key(target, write_target(target))
    asking = asyncio.ensure_future(pool.lend(key, target, QUICK, 60.0))
    await until(lambda: all(kept.lent for kept in pool.kept), what="it is asked")
    asking.cancel()
    await asyncio.wait((asking,))
    left = list(pool.kept)
    for pid in silent:
        os.kill(pid, signal.SIGCONT)
    await end(pool)
    assert left == []


async def test_no_more_connections_wait_than_are_of_use(make_sshd: MakeSshd) -> None:
    """A server counts them as logins, of which a user may have few."""
    server, clocks = make_sshd(), Clocks()
    pool = clocks.pool()
    target = resolve_target(server.node().ssh)
    key = connection_key(target, write_target(target))
    lent = [await pool.lend(key, target, QUICK, 60.0) for _ in range(MOST_WAITING + 1)]
    for kept in lent:
        await pool.take_back(kept, _as_it_was())
    left = len(pool.kept)
    await end(pool)
    assert left == MOST_WAITING


def test_where_a_connection_goes_survives_its_way(make_sshd: MakeSshd) -> None:
    """With all its jump hosts."""
    target = resolve_target(make_sshd(start=False).node().ssh)
    chained = replace(target, via=replace(target, port=2, env=(("A", "b"),)))
    assert read_target(json.loads(json.dumps(write_target(chained)))) == chained
