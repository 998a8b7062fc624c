"""Real processes that write at once, and that are killed while they write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.adapters.history.open_store import sqlite_history
from orchestrator.core.history.run_record import RunQuery
from tests.architecture.source import ROOT
from tests.history.made_runs import make_entry
from tests.time_limits import scaled, wait_for_exit

pytestmark = pytest.mark.processes

# Writes runs NAME-0, NAME-1, ... and prints each number when the run is acknowledged.
WRITER = """
import sys
from pathlib import Path
from orchestrator.adapters.history.open_store import sqlite_history
from tests.history.made_runs import make_entry
path, name, count = sys.argv[1:]
store = sqlite_history(Path(path))
for number in range(int(count)):
    store.record_run(make_entry(f"{name}-{number}", float(number), speed=number + 1.0))
    print(number, flush=True)
"""


def start(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", WRITER, str(path), name, str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def ids(path: Path) -> set[str]:
    return {run.run_id for run in sqlite_history(path).read_runs(RunQuery(limit=10_000))}


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Three processes, into a file that none of them finds there."""
    path, count = tmp_path / "home" / "history.sqlite", 25
    writers = [start(path, name, count) for name in "abc"]
    for writer in writers:
        with writer:
            assert wait_for_exit(writer, 100) == 0
    assert ids(path) == {f"{name}-{number}" for name in "abc" for number in range(count)}


def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """SIGKILL at moments all over a write; what was printed before is there, and it is whole."""
    path = tmp_path / "home" / "history.sqlite"
    sqlite_history(path).record_run(make_entry("first"))
    for attempt in range(6):
        with start(path, f"k{attempt}", 10_000) as writer:
            assert writer.stdout is not None
            acknowledged = [int(writer.stdout.readline()) for _ in range(3)]
            time.sleep(0.002 * attempt)
            writer.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in writer.stdout if line.endswith("\n")]
        found = ids(path)
        assert {f"k{attempt}-{number}" for number in acknowledged} <= found
    runs = sqlite_history(path).read_runs(RunQuery(limit=100_000))
    assert all(run.figures for run in runs if run.run_id != "first")


def test_a_reader_sees_whole_runs_while_others_write(tmp_path: Path) -> None:
    path = tmp_path / "home" / "history.sqlite"
    sqlite_history(path).record_run(make_entry("first", speed=1.0))
    with start(path, "w", 60) as writer:
        deadline = time.monotonic() + scaled(60)
        while writer.poll() is None and time.monotonic() < deadline:
            assert all(run.figures for run in sqlite_history(path).read_runs(RunQuery()))
        assert wait_for_exit(writer, 60) == 0
