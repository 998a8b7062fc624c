"""What a node's account does to a command: shells, their noise, and refusals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.transport.transport import NotStarted
from orchestrator.core.base.command import Command
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.base.outcome import Exited
from orchestrator.core.model.inventory import TransportKind
from tests.contracts.transport.conditions import recognisable_duration, until_not_running
from tests.contracts.transport.conftest import Open
from tests.contracts.transport.sshd import Sshd
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

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
        timeout_s=scaled(15),
    )

    assert done.outcome == Exited(0)
    assert done.stdout.decode().split("\0")[:-1] == HOSTILE
    assert done.stderr == b"error\n"


# Start-up files that keep the login shell from running the line, with the code it exits with when
# its input ends and what it says meanwhile.
SWALLOWED = {
    "ends": ("exit 0", 0, ""),
    "fails": ("exit 3", 3, ""),
    "is replaced": ("exec sh", 0, ""),
    "is replaced by a login shell": ("exec dash -l", 0, ""),
    "copies its input": ("exec cat", 0, ""),
    "needs a terminal": ("exec tmux", 1, "not a terminal"),
    "ends with a reason": ("echo maintenance until noon; exit 0", 0, "maintenance until noon"),
    "fails with a reason": ("echo no quota >&2; exit 9", 9, "no quota"),
}


@pytest.mark.parametrize("name", SWALLOWED)
async def test_a_start_up_file_that_swallows_the_command(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, name: str
) -> None:
    """Never a success: the command did not run, whatever the shell exited with."""
    line, code, words = SWALLOWED[name]
    server = make_sshd(shell="/bin/bash")
    (server.home / ".bashrc").write_text(f"{line}\n")
    transport = await connect(server, ssh_kind)

    with pytest.raises(NotStarted) as caught:
        await transport.run(Command(argv=("touch", "it-ran")), timeout_s=scaled(15))

    error = caught.value
    assert (error.id, error.outcome) == ("OR-SSH-011", Exited(code))
    assert "login shell" in error.what
    assert "start-up files" in error.what
    assert words in error.why
    assert not (server.home / "it-ran").exists()


@pytest.mark.parametrize("line", ["exec sh", "exec cat", "sleep 60"])
async def test_input_is_for_the_command_alone(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open, line: str
) -> None:
    """A shell that took the command's place would execute what is meant for the command."""
    server = make_sshd(shell="/bin/bash")
    (server.home / ".bashrc").write_text(f"{line}\n")
    transport = await connect(server, ssh_kind)

    with pytest.raises(NotStarted) as caught:
        await transport.start(Command(argv=("cat",)), timeout_s=1.5)

    assert caught.value.outcome is None
    assert "within 1.5 s" in caught.value.what


async def test_more_noise_than_any_start_up_file_writes(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """Bounded in memory and in time, and not taken for the command's output."""
    server = make_sshd(shell="/bin/bash")
    (server.home / ".bashrc").write_text("exec yes the same line again\n")
    transport = await connect(server, ssh_kind)

    with pytest.raises(NotStarted) as caught:
        await transport.start(Command(argv=("true",)), timeout_s=scaled(30))

    assert "the same line again" in caught.value.why


async def test_a_slow_start_up_file_is_waited_for(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """Late is not never."""
    server = make_sshd(shell="/bin/bash")
    (server.home / ".bashrc").write_text("sleep 1; echo done\n")
    transport = await connect(server, ssh_kind)

    done = await transport.run(Command(argv=("cat",)), stdin=b"input", timeout_s=scaled(15))

    assert (done.outcome, done.stdout) == (Exited(0), b"input")


async def test_an_account_without_a_shell_says_so(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """What the login shell says in place of the command is not swallowed, also by a busy client
    that gets its words and its end as one piece of news.
    """
    transport = await connect(make_sshd(shell="/usr/sbin/nologin"), ssh_kind)

    async def busy() -> None:
        while True:
            time.sleep(0.03)  # noqa: ASYNC251 - the event loop has other things to do
            await asyncio.sleep(0)

    task = asyncio.create_task(busy())
    runs = (transport.run(Command(argv=("true",)), timeout_s=scaled(15)) for _ in range(4))
    errors = await asyncio.gather(*runs, return_exceptions=True)
    task.cancel()

    for error in errors:
        assert isinstance(error, NotStarted)
        assert error.outcome == Exited(1)
        assert "not available" in error.why


async def test_one_session_is_kept_for_killing(
    ssh_kind: TransportKind, connect: Open, sshd: Sshd
) -> None:
    """However many commands run, each can be killed; one too many is refused at once."""
    transport = await connect(sshd, ssh_kind)
    durations = [recognisable_duration() for _ in range(9)]
    commands = [Command(argv=("sleep", duration)) for duration in durations]
    running = [await transport.start(command, timeout_s=scaled(15)) for command in commands]

    with pytest.raises(PreflightError) as caught:
        await transport.start(Command(argv=("true",)), timeout_s=scaled(15))
    await asyncio.gather(*(process.kill() for process in running))

    assert caught.value.id == "OR-SSH-009"
    for duration in durations:
        await until_not_running(duration)


async def test_a_full_connection_refuses_with_a_reason(
    ssh_kind: TransportKind, make_sshd: MakeSshd, connect: Open
) -> None:
    """MaxSessions is an error that names itself, and the running commands go on."""
    transport = await connect(make_sshd(options=("MaxSessions 2",)), ssh_kind)
    running = [
        await transport.start(Command(argv=("cat",)), timeout_s=scaled(15)) for _ in range(2)
    ]

    with pytest.raises(PreflightError) as caught:
        await transport.start(Command(argv=("true",)), timeout_s=scaled(15))

    assert caught.value.id == "OR-SSH-009"
    for process in running:
        await process.close_stdin()
        assert await process.wait(scaled(10)) == Exited(0)
