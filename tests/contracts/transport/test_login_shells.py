"""What a node's account does to a command: shells, their noise, and refusals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.core.base.command import Command
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.base.outcome import Exited
from orchestrator.core.model.inventory import TransportKind
from tests.contracts.transport.conditions import recognisable_duration, until_not_running
from tests.contracts.transport.conftest import Open
from tests.contracts.transport.sshd import Sshd

MakeSshd = Callable[..., Sshd]
HOSTILE = [
    "a b",
    "new\nline",
    "'",
    '"',
    "$(id)",
    "`id`",
    "*",
    "~",
    "-n",
    "\\",
    "",
    "!",
    "ü",
    "#",
    "%",
]


NOISE = 'echo "Welcome, $USER!"; echo "motd: $(date)" >&2; printf "no newline"\n'


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/bin/dash"])
async def test_login_shells_and_their_noise(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, tmp_path: Path, shell: str
) -> None:
    """Banners and chatty start-up files do not touch a command's bytes; arguments stay exact."""
    banner = tmp_path / "banner"
    banner.write_text("Authorised users only.\n" * 100)
    server = make_sshd(shell=shell, options=(f"Banner {banner}",))
    for name in (".bashrc", ".profile", ".bash_profile", ".ssh/rc"):
        (server.home / name).write_text(NOISE)
    transport = await connect(server, ssh_kind)

    done = await transport.run(
        Command(
            argv=("sh", "-c", 'printf "%s\\0" "$@"; echo error >&2', "sh", *HOSTILE),
            env={"BASH_ENV": "/nonexistent", "X": "$(id)"},
            cwd="/",
        ),
        timeout_s=15,
    )

    assert done.outcome == Exited(0)
    assert done.stdout.decode().split("\0")[:-1] == HOSTILE
    assert done.stderr == b"error\n"


async def test_an_account_without_a_shell_says_so(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """What the login shell says in place of the command is not swallowed."""
    transport = await connect(make_sshd(shell="/usr/sbin/nologin"), ssh_kind)

    done = await transport.run(Command(argv=("true",)), timeout_s=15)

    assert done.outcome == Exited(1)
    assert b"not available" in done.stdout


async def test_who_ends_before_we_listen_is_heard(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """A command that is over in an instant, seen by a busy client: its words and its end are one
    piece of news by then.
    """
    transport = await connect(make_sshd(shell="/usr/sbin/nologin"), ssh_kind)

    async def busy() -> None:
        while True:
            time.sleep(0.03)  # noqa: ASYNC251 - the event loop has other things to do
            await asyncio.sleep(0)

    task = asyncio.create_task(busy())
    runs = (transport.run(Command(argv=("true",)), timeout_s=15) for _ in range(4))
    done = await asyncio.gather(*runs)
    task.cancel()

    assert [completed.outcome for completed in done] == [Exited(1)] * 4
    assert all(b"not available" in completed.stdout for completed in done)


async def test_one_session_is_kept_for_killing(
    ssh_kind: TransportKind, connect: Open, sshd: Sshd
) -> None:
    """However many commands run, each can be killed; one too many is refused at once."""
    transport = await connect(sshd, ssh_kind)
    durations = [recognisable_duration() for _ in range(9)]
    commands = [Command(argv=("sleep", duration)) for duration in durations]
    running = [await transport.start(command, timeout_s=15) for command in commands]

    with pytest.raises(PreflightError) as caught:
        await transport.start(Command(argv=("true",)), timeout_s=15)
    await asyncio.gather(*(process.kill() for process in running))

    assert caught.value.id == "OR-SSH-009"
    for duration in durations:
        await until_not_running(duration)


async def test_a_full_connection_refuses_with_a_reason(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """MaxSessions is an error that names itself, and the running commands go on."""
    transport = await connect(make_sshd(options=("MaxSessions 2",)), ssh_kind)
    running = [await transport.start(Command(argv=("cat",)), timeout_s=15) for _ in range(2)]

    with pytest.raises(PreflightError) as caught:
        await transport.start(Command(argv=("true",)), timeout_s=15)

    assert caught.value.id == "OR-SSH-009"
    for process in running:
        await process.close_stdin()
        assert await process.wait(10) == Exited(0)
