"""Bytes in and out of a running command, over every transport: exact, bounded, in step."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.transport.transport import ChannelClosed, LineTooLong, Transport
from orchestrator.core.base.command import Command
from orchestrator.core.base.outcome import Exited
from tests.contracts.transport.conditions import until
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

ALL_BYTES = bytes(range(256))
PYTHON = sys.executable
MEGABYTE = 1024 * 1024


def resident_bytes() -> int:
    """What this process occupies now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


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

    done = await transport.run(Command(argv=(PYTHON, "-c", script)), timeout_s=scaled(30))

    assert done.outcome == Exited(0)
    assert done.stdout == ALL_BYTES * (5 * 4096)
    assert done.stderr == (ALL_BYTES * (5 * 4096))[::-1]


async def test_exact_bytes_of_input(transport: Transport) -> None:
    """Standard input arrives unchanged and ends."""
    sent = ALL_BYTES * 4096

    done = await transport.run(Command(argv=("cat",)), stdin=sent, timeout_s=scaled(30))

    assert (done.outcome, done.stdout == sent) == (Exited(0), True)


async def test_exact_bytes_of_a_file_as_input(transport: Transport, tmp_path: Path) -> None:
    """The same from a file, which is not read as a whole; a program may end before its end."""
    (tmp_path / "input").write_bytes(ALL_BYTES * 4096)
    head = Command(argv=("head", "-c", "3"))

    with (tmp_path / "input").open("rb") as file:
        done = await transport.run(Command(argv=("cat",)), stdin=file, timeout_s=scaled(30))
        file.seek(0)
        begun = await transport.run(head, stdin=file, timeout_s=scaled(30))

    assert (done.outcome, done.stdout == ALL_BYTES * 4096) == (Exited(0), True)
    assert (begun.outcome, begun.stdout) == (Exited(0), ALL_BYTES[:3])


async def test_large_transfers_in_bounded_memory(transport: Transport) -> None:
    """64 MB in and out, exact, while neither side's buffers grow with the amount."""
    chunk, count = os.urandom(MEGABYTE), 64
    process = await transport.start(Command(argv=("cat",)), timeout_s=scaled(15))
    before_bytes = peak_bytes = resident_bytes()

    async def feed() -> None:
        for _ in range(count):
            await process.write(chunk)
        await process.close_stdin()

    async def digest() -> tuple[int, str]:
        nonlocal peak_bytes
        total, sha = 0, hashlib.sha256()
        while data := await process.read_stdout(256 * 1024):
            total += len(data)
            sha.update(data)
            peak_bytes = max(peak_bytes, resident_bytes())
        return total, sha.hexdigest()

    async with asyncio.timeout(scaled(60)), asyncio.TaskGroup() as group:
        group.create_task(feed())
        received = group.create_task(digest())

    expected = hashlib.sha256()
    for _ in range(count):
        expected.update(chunk)
    assert received.result() == (64 * MEGABYTE, expected.hexdigest())
    assert await process.wait(scaled(10)) == Exited(0)
    assert peak_bytes - before_bytes < 24 * MEGABYTE


async def test_a_reader_that_stops_slows_the_writer(transport: Transport, tmp_path: Path) -> None:
    """Unread output stays on the node; reading on gets all of it."""
    progress = tmp_path / "progress"
    script = (
        "import os, sys\n"
        "for n in range(64):\n"
        "    os.write(1, bytes(1 << 20)); open(sys.argv[1], 'w').write(str(n))\n"
    )
    process = await transport.start(
        Command(argv=(PYTHON, "-c", script, str(progress))), timeout_s=scaled(15)
    )
    await until(progress.exists, what="the first megabyte")
    written = -1
    while written != (now := int(progress.read_text() or 0)):  # until it stands still
        written = now
        await asyncio.sleep(0.3)

    assert written < 16

    total = 0
    async with asyncio.timeout(scaled(30)):
        while data := await process.read_stdout(MEGABYTE):
            total += len(data)
    assert total == 64 * MEGABYTE
    assert await process.wait(scaled(10)) == Exited(0)


async def test_a_writer_waits_for_a_program_that_does_not_read(transport: Transport) -> None:
    """``write`` returns only as fast as the program reads, and a killed one wakes it."""
    process = await transport.start(Command(argv=("sleep", "60")), timeout_s=scaled(15))
    writing = asyncio.create_task(process.write(bytes(64 * MEGABYTE)))
    done, _ = await asyncio.wait([writing], timeout=0.5)
    assert not done

    await process.kill()

    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(writing, scaled(5))


async def test_kept_output_is_limited(transport: Transport) -> None:
    """A flood is drained, cut at the limit, and says so."""
    command = Command(
        argv=(
            PYTHON,
            "-c",
            "import os; os.write(1, b'x'); [os.write(1, bytes(1 << 20)) for _ in range(8)]",
        )
    )

    done = await transport.run(command, timeout_s=scaled(30), limit_bytes=1000)

    assert (done.outcome, done.stdout, done.truncated) == (Exited(0), b"x" + bytes(999), True)


async def test_lines(transport: Transport) -> None:
    """Lines come whole, the last one without a newline too, and a bound holds."""
    process = await transport.start(
        Command(argv=("sh", "-c", "printf 'one\\n\\nthree'; head -c 5000 /dev/zero")),
        timeout_s=scaled(15),
    )

    assert await process.read_line(100) == b"one\n"
    assert await process.read_line(100) == b"\n"
    with pytest.raises(LineTooLong):
        await process.read_line(1000)
    assert await process.read_line(9000) == b"three" + bytes(5000)
    assert await process.read_line(100) == b""
    assert await process.wait(scaled(10)) == Exited(0)


async def test_a_conversation(transport: Transport) -> None:
    """Requests and replies alternate without waiting for the end of either stream."""
    process = await transport.start(Command(argv=("cat",)), timeout_s=scaled(15))
    async with asyncio.timeout(scaled(15)):
        for number in range(100):
            await process.write(f"{number}\n".encode())
            assert await process.read_line(100) == f"{number}\n".encode()
        await process.close_stdin()
        assert await process.read_line(100) == b""

    assert await process.wait(scaled(10)) == Exited(0)


async def test_input_after_the_end_is_an_error(transport: Transport) -> None:
    """Writing to a program that ended raises; ending its input does not."""
    process = await transport.start(Command(argv=("true",)), timeout_s=scaled(15))
    assert await process.wait(scaled(10)) == Exited(0)
    assert await process.read_stdout(10) == b""

    async def write_on() -> None:
        while True:
            await process.write(bytes(MEGABYTE))

    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(write_on(), scaled(10))
    await process.close_stdin()
    await process.kill()
    assert await process.wait(1) == Exited(0)


async def test_many_commands_at_once(transport: Transport) -> None:
    """Eight processes on one connection do not disturb each other."""
    commands = [Command(argv=("sh", "-c", f"cat; echo {n}; exit {n}")) for n in range(8)]

    results = await asyncio.gather(
        *(transport.run(c, stdin=ALL_BYTES * 512, timeout_s=scaled(30)) for c in commands)
    )

    assert [r.outcome for r in results] == [Exited(n) for n in range(8)]
    assert [r.stdout for r in results] == [ALL_BYTES * 512 + f"{n}\n".encode() for n in range(8)]
