"""An interrupted benchmark leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from virtual_hosts_lib.processes import Process, is_running
from virtual_hosts_lib.state import find_processes

from tests.time_limits import Deadline, communicate, wait_for_exit

PROGRAM = Path(__file__).resolve().parents[2] / "scripts" / "bench"
DEADLINE_S = 60.0


@pytest.mark.hosts
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_hosts_processes_and_files(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C while hosts are up: they are taken down, and no temporary file stays."""
    argv = [sys.executable, str(PROGRAM), "control-plane", "--only", "imports", "--repeats", "1000"]
    bench = subprocess.Popen(
        argv,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        processes = _wait_for_hosts(tmp_path, bench)
        bench.send_signal(number)
        stdout, stderr = communicate(bench, DEADLINE_S)
    finally:
        bench.kill()
        wait_for_exit(bench, DEADLINE_S)

    assert bench.returncode == 128 + number, stderr
    assert "| met |" not in stdout, "nothing is met after so few rounds"
    assert not any(map(is_running, processes))
    assert list(tmp_path.iterdir()) == []


def _wait_for_hosts(folder: Path, bench: subprocess.Popen[str]) -> list[Process]:
    """The processes of the benchmark's hosts, once they are all up."""
    deadline = Deadline(DEADLINE_S)
    while not deadline.passed:
        assert bench.poll() is None, bench.communicate()
        for state in folder.glob("*/hosts/hosts.json"):
            return find_processes(json.loads(state.read_text()))
        time.sleep(0.02)
    raise AssertionError("no hosts came up")


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_finished_rounds_are_reported(tmp_path: Path, number: signal.Signals) -> None:
    """Of a benchmark that was stopped later; it had said how long the rest would take."""
    argv = [sys.executable, str(PROGRAM), "steps", "--nodes", "20", "--repeats", "1000"]
    argv += ["--json", str(tmp_path / "out.json")]
    bench = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert bench.stderr is not None
        told = next(line for line in bench.stderr if "round 2 of 1000" in line)
        bench.send_signal(number)
        stdout, stderr = communicate(bench, DEADLINE_S)
    finally:
        bench.kill()
        wait_for_exit(bench, DEADLINE_S)

    assert bench.returncode == 128 + number, stderr
    assert "s for the other 998" in told
    assert "| 20 " in stdout
    assert json.loads((tmp_path / "out.json").read_text())["steps"][0]["nodes"] == 20
