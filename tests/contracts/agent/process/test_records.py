"""Small parts of the node's side: the journal on a full disk, last lines, leases, identities."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.node_agent.base import lease_file as lease
from orchestrator.node_agent.base.node_layout import ROOM_BYTES, AttemptLayout, write_atomically
from orchestrator.node_agent.process.eventlog import EventLog, last_line, last_words
from orchestrator.node_agent.process.processes import (
    FoundProcess,
    find_process,
    is_alive,
    send_signal,
    sweep_processes,
)
from tests.time_limits import scaled


@pytest.fixture
def sleeper() -> Iterator[FoundProcess]:
    """A process to aim at."""
    process = subprocess.Popen(["sleep", "300"])
    found = find_process(process.pid)
    assert found
    yield found
    process.kill()
    process.wait()


@pytest.mark.parametrize("written", [0, 7])
def test_a_full_disk_tears_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """What does not fit waits, also when half a line had been written; nothing is lost."""
    log = EventLog(str(tmp_path / "events"))
    log.append("first")
    real = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if written:
            return real(fd, data[:written], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    log.append("second")
    log.append("third")
    during = (tmp_path / "events").read_text()
    monkeypatch.setattr(os, "pwrite", real)

    assert log.flush() is True
    lines = (tmp_path / "events").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["first", "second", "third"]
    assert [json.loads(line)["event"] for line in during.splitlines()] == ["first"]


def test_a_record_is_written_over_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases, epochs and requests to stop need no space that is not theirs already; what does not
    fit, or was not there before, leaves everything as it was.
    """
    path, other = tmp_path / "epoch", tmp_path / "other"
    write_atomically(str(path), b"2 token".ljust(ROOM_BYTES))
    kept = path.stat().st_ino

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    write_atomically(str(path), b"4 token")
    for target, data in [(path, b"x" * (ROOM_BYTES + 1)), (other, b"new")]:
        with pytest.raises(OSError, match="No space left"):
            write_atomically(str(target), data)
    assert path.read_bytes() == b"4 token".ljust(ROOM_BYTES)
    assert path.stat().st_ino == kept
    assert [entry.name for entry in tmp_path.iterdir()] == ["epoch"]


def test_a_blank_request_asks_for_nothing(tmp_path: Path) -> None:
    """Every attempt begins with room for a request to stop; a repeat keeps one that was made."""
    attempt = AttemptLayout(str(tmp_path / "attempt-1"))
    attempt.create()
    assert Path(attempt.stop).read_bytes() == b" " * ROOM_BYTES
    Path(attempt.stop).write_text('{"grace_s": 1.0}')
    attempt.create()
    assert Path(attempt.stop).read_text() == '{"grace_s": 1.0}'


def test_a_log_is_never_begun_twice(tmp_path: Path) -> None:
    """A second supervisor of the same attempt could only do harm."""
    EventLog(str(tmp_path / "events"))

    with pytest.raises(FileExistsError):
        EventLog(str(tmp_path / "events"))


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[31mlast words\x1b[0m",
        "\x1b[1;38;2;255;0;0mlast\x1b[m words\x1b[K",
        "\x1b[2K\x1b[1Glast words\x1b[?25h",
        "\x1b]0;a title\x07last words",
        "\x1b]8;;https://example.org\x1b\\last words\x1b]8;;\x1b\\",
        "\x1bPq#0;2;0;0;0\x1b\\last words",
        "\x1b(B\x1b)0last words\x1b7",
        "\x9b31mlast words\x9b0m",
        "last words\x1b[3",
        "last words\x1b",
        "last words\n\x1b[0m\n\x1b[?25h",
    ],
)
def test_what_steers_a_terminal_is_no_last_word(tmp_path: Path, text: str) -> None:
    """Nor is what is left of a sequence once its first character is gone."""
    (tmp_path / "err").write_text(text + "\n")

    assert last_line(str(tmp_path / "err")) == "last words"


@pytest.mark.parametrize(
    "content,expected",
    [
        (b"", ""),
        (b"\n\n \t\n", ""),
        (b"a\nlast", "last"),
        (b"a\nlast\n\n  \n", "last"),
        (b"10%\r20%\r", "20%"),
        (b"\xff\xfe bad", "\ufffd\ufffd bad"),
        (b"\x1b[31mred\x00", "red"),
        (b"x" * 100_000, "x" * 500),
        (b"    | KeyError: 'b'\n    +--------\n", "| KeyError: 'b'"),
        (b"\n ---- \n", "----"),
    ],
)
def test_the_last_line(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "err").write_bytes(content)

    assert last_line(str(tmp_path / "err"), str(tmp_path / "absent")) == expected


def test_standard_output_speaks_if_standard_error_is_silent(tmp_path: Path) -> None:
    (tmp_path / "err").write_bytes(b"\n")
    (tmp_path / "out").write_bytes(b"from out\n")

    assert last_line(str(tmp_path / "err"), str(tmp_path / "out")) == "from out"


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"deadline": "soon"}', b'{"epoch": 1}'])
def test_a_damaged_lease_leaves_the_last_deadline_standing(tmp_path: Path, damage: bytes) -> None:
    attempt = AttemptLayout(str(tmp_path))
    lease.write_lease(attempt, lease.Claim(1, ""), 500.0)
    reader = lease.LeaseReader(attempt)
    before = reader.deadline
    (tmp_path / "lease").write_bytes(damage)

    assert reader.expired is False
    assert reader.deadline == before


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_lease_does_not_hear_of_the_wall_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """However the machine's time is set, the lease ends after as many seconds as it was given."""
    attempt = AttemptLayout(str(tmp_path))
    lease.write_lease(attempt, lease.Claim(1, ""), 60.0)
    reader = lease.LeaseReader(attempt)
    before, wall, clock = lease.boot_seconds(), time.time, time.clock_gettime
    shifted = {time.CLOCK_REALTIME: jump_s}

    monkeypatch.setattr(time, "time", lambda: wall() + jump_s)
    monkeypatch.setattr(time, "clock_gettime", lambda which: clock(which) + shifted.get(which, 0.0))

    assert 0.0 <= lease.boot_seconds() - before < 30.0
    assert not reader.expired


@pytest.mark.processes
def test_a_reused_pid_is_left_alone(sleeper: FoundProcess) -> None:
    """Same pid, other start time: somebody else's process by now."""
    assert send_signal(sleeper.pid, sleeper.start_time + 1, signal.SIGKILL) is False
    assert is_alive(sleeper.pid, sleeper.start_time)
    assert send_signal(sleeper.pid, sleeper.start_time, signal.SIGKILL) is True


@pytest.mark.processes
def test_a_name_with_parentheses_is_read(tmp_path: Path) -> None:
    """The kernel does not escape program names in /proc."""
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "300"])
    try:
        found = find_process(process.pid)
        assert found
        assert found.parent == os.getpid()
        assert found.comm == "a) R 1 (b"
    finally:
        process.kill()
        process.wait()


@pytest.mark.processes
def test_one_empty_scan_is_not_enough(sleeper: FoundProcess) -> None:
    """A process that appears between two scans is still found."""
    scans = iter([[], [sleeper], [], []])

    swept = sweep_processes(lambda: list(next(scans)), timeout_s=scaled(5))

    assert swept.scans == 4
    assert swept.killed == [sleeper.pid]
    assert swept.clean is True


def test_last_words_of_the_killed_are_the_latest_and_of_others_their_errors(tmp_path: Path) -> None:
    """A warning from the start does not stand for the end of a rank that was killed later."""
    err, out = tmp_path / "err", tmp_path / "out"
    err.write_text("an old warning\n")
    out.write_text("step 7\n")
    os.utime(err, ns=(1, 1))
    assert last_words(str(err), str(out), {"signalled": 9}) == "step 7"
    assert last_words(str(err), str(out), {"exited": 1}) == "an old warning"
