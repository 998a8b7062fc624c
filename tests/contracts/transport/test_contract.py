"""What every transport promises: both SSH libraries against a real sshd, and no SSH at all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.command import Command, Secret
from orchestrator.core.outcome import Exited, Lost, Signalled, TimedOut
from orchestrator.edges.transport.base import ChannelClosed, LineTooLong, Transport
from tests.contracts.transport.conditions import (
    is_alive,
    is_running,
    recognisable_duration,
    until,
)

ALL_BYTES = bytes(range(256))
PYTHON = sys.executable
MEGABYTE = 1024 * 1024

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


async def test_exact_bytes_on_both_streams(transport: Transport) -> None:
    """Output of every byte value arrives unchanged, each stream by itself."""
    script = (
        "import os, threading\n"
        "def pour(fd, data):\n"
        "    while data: data = data[os.write(fd, data):]\n"
        f"every = bytes(range(256)) * {5 * 4096}\n"
        "other = threading.Thread(target=pour, args=(2, every[::-1]))\n"
        "other.start(); pour(1, every); other.join()\n"
    )

    done = await transport.run(Command(argv=(PYTHON, "-c", script)), timeout_s=30)

    assert done.outcome == Exited(0)
    assert done.stdout == ALL_BYTES * (5 * 4096)
    assert done.stderr == (ALL_BYTES * (5 * 4096))[::-1]


async def test_exact_bytes_of_input(transport: Transport) -> None:
    """Standard input arrives unchanged and ends."""
    sent = ALL_BYTES * 4096

    done = await transport.run(Command(argv=("cat",)), stdin=sent, timeout_s=30)

    assert (done.outcome, done.stdout == sent) == (Exited(0), True)


async def test_hostile_arguments_arrive_unchanged(transport: Transport) -> None:
    """No shell on the way interprets anything."""
    done = await transport.run(Command(argv=(*ECHO_ARGV, *HOSTILE)), timeout_s=15)

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

    done = await transport.run(Command(argv=(*ECHO_ARGV, *sent)), timeout_s=15)

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
        done = await transport.run(Command(argv=(argv0,), env=env), timeout_s=15)

        assert (done.outcome, done.stdout) == (Exited(0), f"set:{program}".encode())


async def test_environment_arrives_unchanged(transport: Transport) -> None:
    """Names that no shell accepts and values that every shell would interpret."""
    env = {f"T{n}": text for n, text in enumerate(HOSTILE[:-1])} | {"odd.name": "1", "T-x": "a=b"}
    script = "import os, json; print(json.dumps({k: v for k, v in os.environ.items()}))"

    done = await transport.run(Command(argv=(PYTHON, "-c", script), env=env), timeout_s=15)

    seen = json.loads(done.stdout)
    assert {name: seen.get(name) for name in env} == env


async def test_secrets_in_the_environment_are_refused(transport: Transport) -> None:
    """A secret never becomes part of a process list; the attempt is a programmer's error."""
    command = Command(argv=("true",), env={"TOKEN": Secret("canary")})

    with pytest.raises(ValueError, match="secret") as caught:
        await transport.start(command, timeout_s=5)

    assert "canary" not in str(caught.value)


async def test_working_directory(transport: Transport, tmp_path: Path) -> None:
    """``cwd`` is exact, hostile or not; without one a command starts at home."""
    odd = tmp_path / "-odd $(id) 'name'"
    odd.mkdir()

    there = await transport.run(Command(argv=("pwd", "-P"), cwd=str(odd)), timeout_s=15)
    home = await transport.run(
        Command(argv=(PYTHON, "-c", "import os; print(os.getcwd() == os.path.expanduser('~'))")),
        timeout_s=15,
    )
    nowhere = await transport.run(Command(argv=("pwd",), cwd=str(tmp_path / "no")), timeout_s=15)

    assert there.stdout == f"{odd}\n".encode()
    assert home.stdout == b"True\n"
    assert isinstance(nowhere.outcome, Exited)
    assert nowhere.outcome.code != 0
    assert nowhere.stderr


@pytest.mark.parametrize("code", [0, 1, 77, 127, 255])
async def test_exit_codes(transport: Transport, code: int) -> None:
    """The status is the program's own."""
    done = await transport.run(Command(argv=("sh", "-c", f"exit {code}")), timeout_s=15)

    assert done.outcome == Exited(code)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
async def test_death_by_signal_is_not_an_exit_code(transport: Transport, number: int) -> None:
    """A killed program says which signal it was."""
    done = await transport.run(Command(argv=("sh", "-c", f"kill -{number} $$")), timeout_s=15)

    assert done.outcome == Signalled(number)


async def test_a_missing_program_is_127(transport: Transport) -> None:
    """As a shell has it, and the reason is on standard error."""
    done = await transport.run(Command(argv=("no-such-program-here",)), timeout_s=15)

    assert done.outcome == Exited(127)
    assert b"no-such-program-here" in done.stderr


async def test_an_expired_deadline_ends_the_process(transport: Transport) -> None:
    """``TimedOut``, in time, and nothing of the process group is left."""
    script = "sleep 60 & echo $! $$; exec sleep 60"
    process = await transport.start(Command(argv=("sh", "-c", script)), timeout_s=15)
    pids = [int(word) for word in (await process.read_line(100)).split()]

    outcome = await process.wait(0.2)

    assert outcome == TimedOut(0.2)
    for pid in pids:
        await until(lambda pid=pid: not is_alive(pid), what=f"end of process {pid}")  # type: ignore[misc]


async def test_a_cancelled_run_leaves_nothing_behind(transport: Transport, tmp_path: Path) -> None:
    """Cancelling the task that waits kills the command."""
    pid_file = tmp_path / "pid"
    command = Command(
        argv=("sh", "-c", f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 60")
    )
    running = asyncio.create_task(transport.run(command, timeout_s=60))
    await until(pid_file.exists, what="the command's start")
    pid = int(pid_file.read_text())

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await until(lambda: not is_alive(pid), what="the command's end")


async def test_a_cancelled_start_leaves_nothing_behind(transport: Transport) -> None:
    """However early the cancellation comes, what it may have started ends."""
    durations = []
    for delay_s in (0, 0.001, 0.003, 0.01, 0.03):
        duration = recognisable_duration()
        durations.append(duration)
        command = Command(argv=("sleep", duration))
        starting = asyncio.create_task(transport.start(command, timeout_s=15))
        await asyncio.wait([starting], timeout=delay_s)
        starting.cancel()
        (result,) = await asyncio.gather(starting, return_exceptions=True)
        if not isinstance(result, BaseException):
            await result.kill()

    # Commands start in order: by the end of this one the others have started, if they ever do.
    done = await transport.run(Command(argv=("true",)), timeout_s=15)
    assert done.outcome == Exited(0)
    for duration in durations:
        await until(lambda d=duration: not is_running(d), what="the command's end")  # type: ignore[misc]


async def test_large_transfers_in_bounded_memory(transport: Transport) -> None:
    """64 MB in and out, exact, while neither side's buffers grow with the amount."""
    chunk, count = os.urandom(MEGABYTE), 64
    process = await transport.start(Command(argv=("cat",)), timeout_s=15)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    async def feed() -> None:
        for _ in range(count):
            await process.write(chunk)
        await process.close_stdin()

    async def digest() -> tuple[int, str]:
        total, sha = 0, hashlib.sha256()
        while data := await process.read_stdout(256 * 1024):
            total += len(data)
            sha.update(data)
        return total, sha.hexdigest()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(feed())
        received = group.create_task(digest())

    expected = hashlib.sha256()
    for _ in range(count):
        expected.update(chunk)
    assert received.result() == (64 * MEGABYTE, expected.hexdigest())
    assert await process.wait(10) == Exited(0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 32 * 1024


async def test_a_reader_that_stops_slows_the_writer(transport: Transport, tmp_path: Path) -> None:
    """Unread output stays on the node; reading on gets all of it."""
    progress = tmp_path / "progress"
    script = (
        "import os, sys\n"
        "for n in range(64):\n"
        "    os.write(1, bytes(1 << 20)); open(sys.argv[1], 'w').write(str(n))\n"
    )
    process = await transport.start(
        Command(argv=(PYTHON, "-c", script, str(progress))), timeout_s=15
    )
    await until(progress.exists, what="the first megabyte")
    written = -1
    while written != (now := int(progress.read_text() or 0)):  # until it stands still
        written = now
        await asyncio.sleep(0.3)

    assert written < 16

    total = 0
    async with asyncio.timeout(30):
        while data := await process.read_stdout(MEGABYTE):
            total += len(data)
    assert total == 64 * MEGABYTE
    assert await process.wait(10) == Exited(0)


async def test_a_writer_waits_for_a_program_that_does_not_read(transport: Transport) -> None:
    """``write`` returns only as fast as the program reads, and a killed one wakes it."""
    process = await transport.start(Command(argv=("sleep", "60")), timeout_s=15)
    writing = asyncio.create_task(process.write(bytes(64 * MEGABYTE)))
    done, _ = await asyncio.wait([writing], timeout=0.5)
    assert not done

    await process.kill()

    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(writing, 5)


async def test_kept_output_is_limited(transport: Transport) -> None:
    """A flood is drained, cut at the limit, and says so."""
    command = Command(
        argv=(
            PYTHON,
            "-c",
            "import os; os.write(1, b'x'); [os.write(1, bytes(1 << 20)) for _ in range(8)]",
        )
    )

    done = await transport.run(command, timeout_s=30, limit_bytes=1000)

    assert (done.outcome, done.stdout, done.truncated) == (Exited(0), b"x" + bytes(999), True)


async def test_lines(transport: Transport) -> None:
    """Lines come whole, the last one without a newline too, and a bound holds."""
    process = await transport.start(
        Command(argv=("sh", "-c", "printf 'one\\n\\nthree'; head -c 5000 /dev/zero")), timeout_s=15
    )

    assert await process.read_line(100) == b"one\n"
    assert await process.read_line(100) == b"\n"
    with pytest.raises(LineTooLong):
        await process.read_line(1000)
    assert await process.read_line(9000) == b"three" + bytes(5000)
    assert await process.read_line(100) == b""
    assert await process.wait(10) == Exited(0)


async def test_a_conversation(transport: Transport) -> None:
    """Requests and replies alternate without waiting for the end of either stream."""
    process = await transport.start(Command(argv=("cat",)), timeout_s=15)
    async with asyncio.timeout(15):
        for number in range(100):
            await process.write(f"{number}\n".encode())
            assert await process.read_line(100) == f"{number}\n".encode()
        await process.close_stdin()
        assert await process.read_line(100) == b""

    assert await process.wait(10) == Exited(0)


async def test_input_after_the_end_is_an_error(transport: Transport) -> None:
    """Writing to a program that ended raises; ending its input does not."""
    process = await transport.start(Command(argv=("true",)), timeout_s=15)
    assert await process.wait(10) == Exited(0)
    assert await process.read_stdout(10) == b""

    async def write_on() -> None:
        while True:
            await process.write(bytes(MEGABYTE))

    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(write_on(), 10)
    await process.close_stdin()
    await process.kill()
    assert await process.wait(1) == Exited(0)


async def test_an_end_is_seen_although_a_child_keeps_the_streams(transport: Transport) -> None:
    """``wait`` is about the program; whoever inherited its output does not delay it."""
    process = await transport.start(
        Command(argv=("sh", "-c", "sleep 60 & echo $!; exit 7")), timeout_s=15
    )
    child = int(await process.read_line(100))

    try:
        assert await process.wait(10) == Exited(7)
        await process.kill()
    finally:
        os.kill(child, signal.SIGKILL)


async def test_many_commands_at_once(transport: Transport) -> None:
    """Eight processes on one connection do not disturb each other."""
    commands = [Command(argv=("sh", "-c", f"cat; echo {n}; exit {n}")) for n in range(8)]

    results = await asyncio.gather(
        *(transport.run(c, stdin=ALL_BYTES * 512, timeout_s=30) for c in commands)
    )

    assert [r.outcome for r in results] == [Exited(n) for n in range(8)]
    assert [r.stdout for r in results] == [ALL_BYTES * 512 + f"{n}\n".encode() for n in range(8)]


async def test_a_closed_transport_starts_nothing(transport: Transport) -> None:
    """``close`` is final and may be repeated; ``run`` calls it a lost link."""
    await transport.close()
    await transport.close()

    with pytest.raises(ChannelClosed):
        await transport.start(Command(argv=("true",)), timeout_s=5)
    done = await transport.run(Command(argv=("true",)), timeout_s=5)
    assert isinstance(done.outcome, Lost)
