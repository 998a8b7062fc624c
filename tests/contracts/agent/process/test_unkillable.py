"""What not even KILL ends is told, with the reason, and nothing is called clean meanwhile."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.node_agent.attempt import supervisor
from orchestrator.node_agent.attempt.reservations import Reservations
from orchestrator.node_agent.attempt.run_operations import sweep_run
from orchestrator.node_agent.attempt.supervisor import Supervisor
from orchestrator.node_agent.base.node_layout import AttemptLayout, NodeLayout
from orchestrator.node_agent.process import processes
from orchestrator.node_agent.process.processes import (
    MARKER,
    find_process,
    marked_processes,
    sweep_processes,
)
from tests.time_limits import assert_within

NOBODY = 2**22 + 7  # above the kernel's largest pid: a signal to it reaches no process
STUCK = {"pid": NOBODY, "comm": "python3", "state": "D", "wchan": "rpc_wait_bit_killable"}


@pytest.fixture
def stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's share with an attempt, and a /proc that shows one process of it which never ends."""
    share = tmp_path / "work" / "node" / "runs" / "r" / "n1"
    attempt = AttemptLayout(str(share / "attempt-1"))
    (share / "attempt-1" / "logs").mkdir(parents=True)
    entry = tmp_path / "proc" / str(NOBODY)
    entry.mkdir(parents=True)
    zeros = " ".join("0" * 30)
    (entry / "stat").write_text(f"{NOBODY} (python3) D 1 1 1 {zeros}")
    (entry / "environ").write_bytes(f"{MARKER}={attempt.root}\0".encode())
    (entry / "wchan").write_text("rpc_wait_bit_killable")
    monkeypatch.setattr(processes, "PROC", str(tmp_path / "proc"))
    return share


def test_it_is_described(stuck: Path) -> None:
    found = find_process(NOBODY)

    assert found is not None
    assert found.describe() == STUCK


def test_a_sweep_gives_up_in_time(stuck: Path) -> None:
    """It tries until its time is over, and not longer."""
    began = time.monotonic()

    swept = sweep_processes(lambda: marked_processes(str(stuck)), 0.4)

    took_s = time.monotonic() - began
    assert took_s >= 0.4
    assert_within("a sweep in vain", took_s, 2)
    assert swept.clean is False
    assert [process.describe() for process in swept.survivors] == [STUCK]
    assert swept.killed == []


def test_a_run_with_it_is_not_swept(stuck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operation's answer names it; a later one, when it has ended, is clean."""
    monkeypatch.setattr("orchestrator.node_agent.attempt.run_operations.SWEEP_S", 0.3)
    layout = NodeLayout(str(stuck.parents[3]))
    request = {"run": "r", "node": "n1"}

    answer = sweep_run(Reservations(), layout, request)
    (Path(processes.PROC) / str(NOBODY) / "stat").unlink()
    later = sweep_run(Reservations(), layout, request)

    assert (answer["clean"], answer["survivors"]) == (False, [STUCK])
    assert (later["clean"], later["survivors"]) == (True, [])


@pytest.mark.processes
def test_a_conclusion_with_it_is_not_clean(stuck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor's last record says so, within its limit."""
    monkeypatch.setattr(supervisor, "SWEEP_S", 0.3)
    spec: dict[str, Any] = {
        "attempt_dir": str(stuck / "attempt-1"),
        "boot_id": "boot",
        "grace_s": 0.0,
        "processes": [],
        "cwd": "/",
    }
    one = Supervisor(spec)

    began = time.monotonic()
    one.run()

    record = json.loads(Path(one.attempt.events).read_text().splitlines()[-1])
    assert_within("a conclusion in vain", time.monotonic() - began, 3)
    assert record["event"] == "concluded"
    assert record["clean"] is False
    assert record["survivors"] == [STUCK]
