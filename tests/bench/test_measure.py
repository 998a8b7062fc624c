"""Measuring real processes: time, CPU of the whole tree, deadlines, nothing left behind."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest
from bench_lib.base.errors import BenchError
from bench_lib.base.measure import Command, Expected, measure

from tests.time_limits import Deadline, assert_within, scaled

pytestmark = pytest.mark.processes

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
LINE = re.compile(rb"^line (\d+)$", re.MULTILINE)


def python(code: str, *arguments: str) -> Command:
    return Command(argv=[sys.executable, "-I", "-S", "-c", code, *arguments])


def test_cpu_time_includes_grandchildren() -> None:
    """A client that starts others, such as ssh, is charged for them."""
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"

    done = measure([python(parent, BURN)], timeout_s=scaled(60))

    assert done.cpu_s >= 0.3
    assert done.wall_s >= done.cpu_s / (os.cpu_count() or 1)


def test_commands_run_at_once_and_their_cpu_is_added() -> None:
    """Each waits for what the other writes: neither ends unless both run."""
    read, write = os.pipe()
    os.set_inheritable(read, True)
    try:
        commands = [
            Command(argv=["/bin/sh", "-c", f"read word < /proc/{os.getpid()}/fd/{read}"]),
            Command(argv=["/bin/sh", "-c", f"echo word > /proc/{os.getpid()}/fd/{write}"]),
        ]
        done = measure(commands, timeout_s=scaled(30))
    finally:
        os.close(read)
        os.close(write)

    assert_within("all of it", done.wall_s, 30)


def test_the_moment_of_the_last_expected_line_is_kept() -> None:
    """What follows it, such as the clean-up, is in the wall time only."""
    code = "import time; print('line 1', flush=True); print('line 2', flush=True); time.sleep(0.5)"

    done = measure([python(code)], timeout_s=scaled(30), expected=Expected(pattern=LINE, count=2))

    assert done.shown_s + 0.4 < done.wall_s


def test_a_repeated_line_counts_once() -> None:
    """One rank that prints twice is not two ranks."""
    with pytest.raises(BenchError, match="1 of 2 expected"):
        measure(
            [python("print('line 1'); print('line 1')")],
            timeout_s=scaled(30),
            expected=Expected(pattern=LINE, count=2),
        )


def test_standard_error_counts_only_when_merged() -> None:
    """A program may show its lines among its progress."""
    code = "import sys; print('line 1', file=sys.stderr)"
    expected = Expected(pattern=LINE, count=1)
    merged = Command(argv=[*python(code).argv], merged=True)

    assert measure([merged], timeout_s=scaled(30), expected=expected).output == b"line 1\n"
    with pytest.raises(BenchError, match="0 of 1 expected"):
        measure([python(code)], timeout_s=scaled(30), expected=expected)


def test_a_failure_is_no_measurement() -> None:
    """The error names the exit code and quotes what was said."""
    with pytest.raises(BenchError, match=r"(?s)ended with 3.*went wrong"):
        measure(
            [python("import sys; print('went wrong', file=sys.stderr); sys.exit(3)")],
            timeout_s=scaled(30),
        )


@pytest.mark.processes
def test_the_deadline_ends_the_whole_group(tmp_path: Path) -> None:
    """A child that would outlive its parent is killed with it."""
    child = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    parent = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', *sys.argv[1:]])\n"
        "import time; time.sleep(600)"
    )
    told = tmp_path / "pid"

    with pytest.raises(BenchError, match="not done within"):
        measure([python(parent, child, str(told))], timeout_s=2)

    assert_gone(int(told.read_text()))


def test_what_a_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    """A background process that holds the output open delays nothing and does not stay."""
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
    )
    told = tmp_path / "pid"

    done = measure([python(code, str(told))], timeout_s=scaled(60))

    assert_within("all of it", done.wall_s, 30)
    assert_gone(int(told.read_text()))


def assert_gone(pid: int) -> None:
    """The process ends within the deadline; init may take a moment to collect it."""
    deadline = Deadline(10)
    while True:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state in "ZX":
            return
        assert not deadline.passed, f"{pid} still runs"
        time.sleep(0.02)
