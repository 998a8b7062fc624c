"""What a watch promises: every byte once and in order, whatever it is, however often it breaks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentChannel, ChannelLost
from tests.contracts.agent.attempts import Attempt, eventually, exists, launcher, shell
from tests.contracts.agent.conftest import OpenChannel
from tests.time_limits import assert_within, scaled

pytestmark = pytest.mark.processes

MIB = 1024 * 1024


async def test_ranks_outlive_the_channel_and_no_byte_is_lost(
    attempt: Attempt, open_channel: OpenChannel
) -> None:
    """The channel's process is killed twice; new watches go on from the cursors."""
    await attempt.launch(shell(0, "for i in $(seq 300); do echo line $i; sleep 0.004; done"))
    for lines in (20, 120):
        await attempt.follow(partial(_has_lines, lines))
        os.kill(attempt.channel.hello.pid, signal.SIGKILL)
        with pytest.raises(ChannelLost):
            await attempt.ask("runs")
        await attempt.watch(await open_channel())

    concluded = await attempt.to_end()

    expected = "".join(f"line {i}\n" for i in range(1, 301)).encode()
    assert attempt.files["rank-0.out"] == expected
    assert [r["seq"] for r in attempt.records] == list(range(len(attempt.records)))
    assert concluded["outcomes"] == {"rank-0": {"exited": 0}}


def _has_lines(count: int, attempt: Attempt) -> bool:
    return attempt.files.get("rank-0.out", b"").count(b"\n") >= count


async def test_a_watch_that_comes_late_sees_it_all(attempt: Attempt) -> None:
    """After the end, too, everything is told, and the watch ends by itself."""
    await attempt.launch(shell(0, "echo out; echo err >&2; exit 4"))
    await attempt.to_end()
    late = Attempt(attempt.channel, Path("unused"), attempt.names["run"])

    await late.watch()
    await late.to_end()

    assert late.records == attempt.records
    assert late.files == attempt.files


async def test_any_bytes_pass(attempt: Attempt) -> None:
    """NUL, invalid UTF-8, carriage returns, escape sequences, a last line without its end."""
    raw = b"a\0b\xff\xfe\x80 10%\r20%\r\n\x1b[31mred\x1b[0m\xe2\x82 no newline"
    escaped = "".join(f"\\x{byte:02x}" for byte in raw)
    await attempt.launch(shell(0, f"printf '{escaped}'; printf '{escaped}' >&2; exit 9"))

    await attempt.to_end()

    assert attempt.files["rank-0.out"] == attempt.files["rank-0.err"] == raw
    last_line = attempt.only("rank-exited")["last_line"]
    assert last_line.isprintable()
    assert last_line.startswith("red")


async def test_a_very_long_line(attempt: Attempt) -> None:
    """10 MiB without a newline arrive whole, and the last line is cut to 500 characters."""
    await attempt.launch(shell(0, "head -c 10485760 /dev/zero | tr '\\0' x; exit 1"))

    await attempt.to_end(30)

    assert attempt.files["rank-0.out"] == b"x" * 10 * MIB
    assert attempt.only("rank-exited")["last_line"] == "x" * 500


async def test_a_flood_is_carried_in_bounded_memory(attempt: Attempt) -> None:
    """200 MiB as fast as the rank can write: all of it arrives, nothing of ours grows with it."""
    await attempt.launch(shell(0, "head -c 209715200 /dev/zero"))
    received = 0
    supervisor = 0
    async with asyncio.timeout(scaled(60)):
        async for event in attempt.channel.events():
            if event.name == "supervisor" and event.fields["record"]["event"] == "started":
                supervisor = event.fields["record"]["pid"]
            received += len(event.payload) if event.name == "log" else 0
            if event.name == "drained":
                break

    peaks = [_peak_kib(pid) for pid in (attempt.channel.hello.pid, supervisor) if exists(pid)]
    assert received == 200 * MIB
    assert peaks
    assert max(peaks) < 64 * 1024


def _peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


async def test_a_watcher_that_does_not_consume_holds_nothing_up(attempt: Attempt) -> None:
    """Megabytes wait; requests on the same channel are answered at once, and nothing is lost."""
    await attempt.launch(shell(0, "head -c 33554432 /dev/zero; sleep 300"))
    path = attempt.root / "logs" / "rank-0.out"
    await eventually(lambda: path.exists() and path.stat().st_size == 32 * MIB)

    began = time.monotonic()
    for _ in range(20):
        await attempt.ask("renew", epoch=1, lease_s=60.0)

    assert_within("twenty renewals beside megabytes", time.monotonic() - began, 5)
    await attempt.follow(lambda a: len(a.files.get("rank-0.out", b"")) == 32 * MIB, 30)


async def test_reports_arrive_in_whole_lines(attempt: Attempt) -> None:
    """A line that is still being written waits for its end."""
    script = (
        'f=$ORCHESTRATE_REPORT_DIR/rank-0.jsonl; printf "{\\"a\\":1}\\n{\\"b\\"" >> $f; '
        "touch {output}/half; while [ ! -e {output}/go ]; do sleep 0.02; done; "
        'printf ":2}\\n{\\"torn" >> $f'
    )
    await attempt.launch(shell(0, script))

    await attempt.follow(lambda a: "rank-0.jsonl" in a.files)
    first = bytes(attempt.files["rank-0.jsonl"])
    (attempt.root / "output" / "go").touch()
    await attempt.to_end()

    assert first == b'{"a":1}\n'
    lines = attempt.files["rank-0.jsonl"].splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1}, {"b": 2}]


async def test_links_and_pipes_in_place_of_logs_are_not_read(attempt: Attempt) -> None:
    """A rank that plants a link to a secret, or a pipe that would block, gets neither read."""
    script = (
        "cd {attempt}/logs; ln -s /etc/passwd rank-7.out; mkfifo rank-8.out; "
        "ln -s /etc/passwd {report}/rank-7.jsonl; echo done"
    )
    await attempt.launch(shell(0, script))

    await attempt.to_end()

    assert set(attempt.files) == {"rank-0.out"}


async def test_unwatch_ends_the_stream(attempt: Attempt) -> None:
    """After unwatch is answered at most what was under way still comes."""
    await attempt.launch(launcher("bash", "-c", "while :; do echo tick; sleep 0.01; done"))
    watch = await attempt.watch()
    await attempt.channel.request("unwatch", {"watch": watch}, timeout_s=scaled(5))
    other = await attempt.channel.request(
        "unwatch", {"watch": "no such watch"}, timeout_s=scaled(5)
    )

    assert other.fields == {}


async def test_a_rate_limit_slows_logs_only(attempt: Attempt, channel: AgentChannel) -> None:
    """At 64 KiB a second a big log trickles, while the endings are told at once."""
    slow = Attempt(channel, Path("unused"), attempt.names["run"])
    await attempt.launch(shell(0, "head -c 1048576 /dev/zero; exit 0"))
    await attempt.to_end()

    watch = await slow.watch(rate_limit=65536.0)
    began = time.monotonic()
    await slow.follow(lambda a: a.seen("concluded"), 5)
    told_s = time.monotonic() - began
    await slow.follow(lambda a: len(a.files.get("rank-0.out", b"")) >= 65536, 10)
    await channel.request("unwatch", {"watch": watch}, timeout_s=scaled(5))

    assert_within("the news of an end", told_s, 1)
    assert len(slow.files["rank-0.out"]) < MIB
