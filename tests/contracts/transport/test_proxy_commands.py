"""ProxyCommand and ProxyJump, as OpenSSH combines and runs them."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.base.command import Command
from orchestrator.core.base.outcome import Exited
from orchestrator.core.model.inventory import TransportKind
from tests.contracts.transport.conditions import until_ended
from tests.contracts.transport.conftest import Open, refused
from tests.contracts.transport.relay import RELAY, demand, make_relay, runs
from tests.contracts.transport.sshd import USER, Sshd
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

MakeSshd = Callable[..., Sshd]


@pytest.fixture
def relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ProxyCommand, in the folder that the variable RELAYS names."""
    monkeypatch.setenv("RELAYS", str(tmp_path))
    return make_relay(tmp_path)


@pytest.fixture
def deaf_relay(relay: Path) -> Path:
    """One that writes its process id beside it, and ignores the signal that OpenSSH sends."""
    _, _, program = RELAY.partition("\n")
    relay.write_text(f"#!/bin/sh\necho $$ > $RELAYS/pid\ntrap '' HUP\n{program}")
    return relay


@contextmanager
def home_with(path: str, text: str) -> Iterator[None]:
    """A program below the account's real home, which is where ``~`` leads, for a while."""
    file = Path(pwd.getpwuid(os.getuid()).pw_dir, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    try:
        yield
    finally:
        file.unlink()


@pytest.mark.parametrize(
    "line",
    [
        "$RELAYS/relay %h %p",
        "/bin/sh ~/.orchestrate-relay-test %h %p",
        '"$RELAYS"/relay $(echo %h) %p',
        "$RELAYS/relay %h %p 2>/dev/null",
        "env A='a b' $RELAYS/relay `echo %h` %p",
        "$RELAYS/relay %h %p; echo never",
    ],
)
async def test_a_proxy_command_is_a_line_for_the_shell(
    ssh_kind: TransportKind,
    make_sshd: MakeSshd,
    connect: Open,
    relay: Path,
    line: str,
) -> None:
    """Variables, ``~``, substitutions and redirections, behind ``exec``."""
    server = make_sshd()
    demand(server, f"ProxyCommand {line}")

    with home_with(".orchestrate-relay-test", f'#!/bin/sh\nexec {relay} "$@"\n'):
        transport = await connect(server, ssh_kind)
        done = await transport.run(
            Command(argv=("cat",)), stdin=bytes(100_000), timeout_s=scaled(15)
        )

    assert (done.outcome, done.stdout) == (Exited(0), bytes(100_000))
    assert runs(relay) == 1


async def test_the_shell_is_the_users(
    library_kind: TransportKind,
    make_sshd: MakeSshd,
    connect: Open,
    relay: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one of ``SHELL``, and the error names it when it cannot be started."""
    shell, told = relay.with_name("shell"), relay.with_name("told")
    shell.write_text(f'#!/bin/sh\necho "$@" > {told}\nexec sh "$@"\n')
    shell.chmod(0o755)
    monkeypatch.setenv("SHELL", str(shell))
    server = make_sshd()
    demand(server, f"ProxyCommand {relay} %h %p")

    await connect(server, library_kind)

    assert told.read_text() == f"-c exec {relay} 127.0.0.1 {server.port}\n"
    monkeypatch.setenv("SHELL", "/nonexistent/shell")
    error = await refused(connect, server, library_kind)
    assert error.id == "OR-SSH-012"
    assert "/nonexistent/shell" in error.why


# The command, the code that it ends with, and its words.
FAILURES = [
    ("sh -c 'echo bastion: account expired >&2; exit 1'", 1, "bastion: account expired"),
    ("sh -c 'echo one >&2; echo two >&2; exit 255'", 255, "one two"),
    ("/nonexistent/relay %h %p", 127, "/nonexistent/relay"),
    ("sh -c 'read line; echo no route >&2; exit 0'", 0, "no route"),
]


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_proxy_command_that_fails_is_blamed(
    library_kind: TransportKind,
    make_sshd: MakeSshd,
    connect: Open,
    capfd: pytest.CaptureFixture[str],
    failure: tuple[str, int, str],
) -> None:
    """With its exit code and its own words, once, and nothing is said of the server."""
    line, code, words = failure
    server = make_sshd()
    log = server.root / "attempts"
    demand(server, f"ProxyCommand sh -c 'echo x >> {log}; exec \"$@\"' sh {line}")

    error = await refused(connect, server, library_kind)

    assert error.id == "OR-SSH-012"
    assert f"ended with code {code}" in error.what
    assert words in error.why
    assert "MaxStartups" not in f"{error.why} {error.remedy}"
    assert len(log.read_text().split()) == 1
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


async def test_a_proxy_command_of_openssh_is_tried_again(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, tmp_path: Path
) -> None:
    """When its own server dropped the connection, as under a crowd."""
    server = make_sshd()
    log = tmp_path / "attempts"
    script = tmp_path / "script"
    script.write_text(
        f"echo x >> {log}\n"
        f"[ $(wc -l < {log}) -gt 2 ] && exec {tmp_path}/relay 127.0.0.1 {server.port}\n"
        "echo kex_exchange_identification: Connection closed by remote host >&2\nexit 255\n"
    )
    make_relay(tmp_path)
    demand(server, f"ProxyCommand sh {script}")

    await connect(server, ssh_kind)

    assert len(log.read_text().split()) == 3


async def test_a_proxy_command_ends_with_its_connection(
    library_kind: TransportKind, make_sshd: MakeSshd, connect: Open, deaf_relay: Path
) -> None:
    """Nothing of it is left behind, also when it does not heed a signal."""
    server = make_sshd()
    demand(server, f"ProxyCommand {deaf_relay} %h %p")
    transport = await connect(server, library_kind)

    await transport.close()

    await until_ended(int(deaf_relay.with_name("pid").read_text()))


@pytest.mark.parametrize("apart", [False, True])
async def test_no_jump_host_but_a_proxy_command(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, relay: Path, apart: bool
) -> None:
    """``ProxyJump none`` says nothing about a ProxyCommand, in one block or in two."""
    server = make_sshd()
    command = f"ProxyCommand {relay} %h %p"
    if apart:
        demand(server, "ProxyJump none")
        with server.ssh_config.open("a") as file:
            file.write(f"Host *\n  {command}\n")
    else:
        demand(server, "ProxyJump none", command)

    await connect(server, ssh_kind)

    assert runs(relay) == 1


async def test_no_proxy_command_overrules_a_jump_host(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """``ProxyCommand none`` first: OpenSSH dials directly."""
    server = make_sshd()
    demand(server, "ProxyCommand none", "ProxyJump nowhere.invalid")

    await connect(server, ssh_kind)


async def test_tokens_in_a_jump_host(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """``%h`` is the target's host, ``%r`` its user."""
    jump, inner = make_sshd(name="jump"), make_sshd(name="inner")
    block = jump.config_block().replace(f"Host {jump.name}", "Host b-127.0.0.1")
    inner.ssh_config.write_text(
        inner.config_block()
        + f"  ProxyJump %r@b-%h\n{block.replace(f'User {USER}', 'User nobody')}"
    )

    await connect(inner, ssh_kind)

    assert jump.count_logged("Accepted publickey") == 1


async def test_the_inventory_overrules_a_jump_host_with_none(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, relay: Path
) -> None:
    """``jump: none`` is ``ssh -J none``: no ProxyCommand either."""
    server = make_sshd()
    demand(server, f"ProxyCommand {relay} %h %p")
    spec = server.node(ssh_kind)

    await connect(replace(spec, ssh=replace(spec.ssh, jump="none")))

    assert runs(relay) == 0
