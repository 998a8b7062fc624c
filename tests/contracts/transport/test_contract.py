"""What every transport promises: both SSH libraries against a real sshd, and no SSH at all."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapters.transport.transport import ChannelClosed, Transport
from orchestrator.core.base.command import Command, Secret
from orchestrator.core.base.outcome import Exited, Lost, Signalled, TimedOut
from tests.contracts.transport.conditions import (
    recognisable_duration,
    until,
    until_ended,
    until_not_running,
)
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

ALL_BYTES = bytes(range(256))
PYTHON = sys.executable

# Prints its arguments, each followed by a NUL, so that nothing is ambiguous.
ECHO_ARGV = (
    PYTHON,
    "-c",
    "import os, sys; os.write(1, b''.join(os.fsencode(a) + b'\\0' for a in sys.argv[1:]))",
)

HOSTILE = [
    "",
    " ",
    "two words",
    "new\nline",
    "\ttab\r",
    "'single'",
    '"double"',
    """mixed'"'"'quotes""",
    "$(id)",
    "`id`",
    "$HOME",
    "${IFS}",
    "a;id",
    "a && id",
    "| id",
    "> /tmp/never",
    "*",
    "?",
    "~",
    "~root",
    "[a-z]*",
    "{a,b}",
    "!history",
    "#comment",
    "\\",
    "\\n",
    "-oProxyCommand=id",
    "--",
    "-",
    "%s",
    "^x^y",
    "ünïcödé \N{SNOWMAN} \U0001f600",
    "\N{RIGHT-TO-LEFT OVERRIDE}abc",
    "\udcff\udc80",  # bytes that are not UTF-8
    "x" * 65536,
]


def argv_received(stdout: bytes) -> list[str]:
    return [os.fsdecode(item) for item in stdout.split(b"\0")[:-1]]


async def test_hostile_arguments_arrive_unchanged(transport: Transport) -> None:
    """No shell on the way interprets anything."""
    done = await transport.run(Command(argv=(*ECHO_ARGV, *HOSTILE)), timeout_s=scaled(15))

    assert argv_received(done.stdout) == HOSTILE


arguments = st.lists(
    st.text(st.characters(min_codepoint=1, codec="utf-8"), max_size=40), max_size=6
)


async def test_any_arguments_arrive_unchanged(transport: Transport) -> None:
    """The property behind the table above, for arguments nobody thought of."""
    examples: list[list[str]] = []

    @settings(max_examples=150, database=None, deadline=None, derandomize=True)
    @given(arguments)
    def collect(argv: list[str]) -> None:
        examples.append(argv)

    collect()
    # One process for all of them: a separator that no example contains keeps them apart.
    separator = "\x01" * 41
    sent = [word for argv in examples for word in (*argv, separator)]

    done = await transport.run(Command(argv=(*ECHO_ARGV, *sent)), timeout_s=scaled(15))

    assert argv_received(done.stdout) == sent


@pytest.mark.parametrize("name", ["-dash", "a=b", "with space", "$dollar", "quo'te"])
async def test_program_names_are_taken_literally(
    transport: Transport, tmp_path: Path, name: str
) -> None:
    """A program's name is never an option, an assignment or a pattern."""
    program = tmp_path / name
    program.write_text('#!/bin/sh\nprintf %s "$X:$0"\n')
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "X": "set"}

    for argv0 in (name, str(program)):
        done = await transport.run(Command(argv=(argv0,), env=env), timeout_s=scaled(15))

        assert (done.outcome, done.stdout) == (Exited(0), f"set:{program}".encode())


async def test_environment_arrives_unchanged(transport: Transport) -> None:
    """Names that no shell accepts and values that every shell would interpret."""
    env = {f"T{n}": text for n, text in enumerate(HOSTILE[:-1])} | {"odd.name": "1", "T-x": "a=b"}
    script = "import os, json; print(json.dumps({k: v for k, v in os.environ.items()}))"

    done = await transport.run(Command(argv=(PYTHON, "-c", script), env=env), timeout_s=scaled(15))

    seen = json.loads(done.stdout)
    assert {name: seen.get(name) for name in env} == env


async def test_secrets_in_the_environment_are_refused(transport: Transport) -> None:
    """A secret never becomes part of a process list; the attempt is a programmer's error."""
    command = Command(argv=("true",), env={"TOKEN": Secret("canary")})

    with pytest.raises(ValueError, match="secret") as caught:
        await transport.start(command, timeout_s=scaled(5))

    assert "canary" not in str(caught.value)


async def test_working_directory(transport: Transport, tmp_path: Path) -> None:
    """``cwd`` is exact, hostile or not; without one a command starts at home."""
    odd = tmp_path / "-odd $(id) 'name'"
    odd.mkdir()

    there = await transport.run(Command(argv=("pwd", "-P"), cwd=str(odd)), timeout_s=scaled(15))
    home = await transport.run(
        Command(argv=(PYTHON, "-c", "import os; print(os.getcwd() == os.path.expanduser('~'))")),
        timeout_s=scaled(15),
    )
    nowhere = await transport.run(
        Command(argv=("pwd",), cwd=str(tmp_path / "no")), timeout_s=scaled(15)
    )

    assert there.stdout == f"{odd}\n".encode()
    assert home.stdout == b"True\n"
    assert isinstance(nowhere.outcome, Exited)
    assert nowhere.outcome.code != 0
    assert nowhere.stderr


@pytest.mark.parametrize("code", [0, 1, 77, 127, 255])
async def test_exit_codes(transport: Transport, code: int) -> None:
    """The status is the program's own."""
    done = await transport.run(Command(argv=("sh", "-c", f"exit {code}")), timeout_s=scaled(15))

    assert done.outcome == Exited(code)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
async def test_death_by_signal_is_not_an_exit_code(transport: Transport, number: int) -> None:
    """A killed program says which signal it was."""
    done = await transport.run(
        Command(argv=("sh", "-c", f"kill -{number} $$")), timeout_s=scaled(15)
    )

    assert done.outcome == Signalled(number)


async def test_a_missing_program_is_127(transport: Transport) -> None:
    """As a shell has it, and the reason is on standard error."""
    done = await transport.run(Command(argv=("no-such-program-here",)), timeout_s=scaled(15))

    assert done.outcome == Exited(127)
    assert b"no-such-program-here" in done.stderr


async def test_an_expired_deadline_ends_the_process(transport: Transport) -> None:
    """``TimedOut``, in time, and nothing of the process group is left."""
    script = "sleep 60 & echo $! $$; exec sleep 60"
    process = await transport.start(Command(argv=("sh", "-c", script)), timeout_s=scaled(15))
    pids = [int(word) for word in (await process.read_line(100)).split()]

    outcome = await process.wait(0.2)

    assert outcome == TimedOut(0.2)
    for pid in pids:
        await until_ended(pid)


async def test_a_cancelled_run_leaves_nothing_behind(transport: Transport, tmp_path: Path) -> None:
    """Cancelling the task that waits kills the command."""
    pid_file = tmp_path / "pid"
    command = Command(
        argv=("sh", "-c", f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 60")
    )
    running = asyncio.create_task(transport.run(command, timeout_s=scaled(60)))
    await until(pid_file.exists, what="the command's start")
    pid = int(pid_file.read_text())

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await until_ended(pid)


async def test_a_cancelled_start_leaves_nothing_behind(transport: Transport) -> None:
    """However early the cancellation comes, what it may have started ends."""
    durations = []
    for delay_s in (0, 0.001, 0.003, 0.01, 0.03):
        duration = recognisable_duration()
        durations.append(duration)
        command = Command(argv=("sleep", duration))
        starting = asyncio.create_task(transport.start(command, timeout_s=scaled(15)))
        await asyncio.wait([starting], timeout=delay_s)
        starting.cancel()
        (result,) = await asyncio.gather(starting, return_exceptions=True)
        if not isinstance(result, BaseException):
            await result.kill()

    # Commands start in order: by the end of this one the others have started, if they ever do.
    done = await transport.run(Command(argv=("true",)), timeout_s=scaled(15))
    assert done.outcome == Exited(0)
    for duration in durations:
        await until_not_running(duration)


async def test_an_end_is_seen_although_a_child_keeps_the_streams(transport: Transport) -> None:
    """``wait`` is about the program; whoever inherited its output does not delay it."""
    process = await transport.start(
        Command(argv=("sh", "-c", "sleep 60 & echo $!; exit 7")), timeout_s=scaled(15)
    )
    child = int(await process.read_line(100))

    try:
        assert await process.wait(scaled(10)) == Exited(7)
        await process.kill()
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_closed_transport_starts_nothing(transport: Transport) -> None:
    """``close`` is final and may be repeated; ``run`` calls it a lost link."""
    await transport.close()
    await transport.close()

    with pytest.raises(ChannelClosed):
        await transport.start(Command(argv=("true",)), timeout_s=scaled(5))
    done = await transport.run(Command(argv=("true",)), timeout_s=scaled(5))
    assert isinstance(done.outcome, Lost)


async def test_a_command_without_input(transport: Transport) -> None:
    """What reads its standard input finds the end of it at once."""
    process = await transport.start(Command(argv=("cat",)), timeout_s=15, has_input=False)

    assert await process.wait(15) == Exited(0)
    with pytest.raises(ChannelClosed):
        await process.write(b"too late")
