"""Clocks that differ by an hour, or jump, decide nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.architecture.source import ROOT
from tests.hosts.processes import remains
from tests.hosts.promises import clean, go_on
from tests.hosts.running import Desk, budgets, wait_until
from tests.time_limits import Measured

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]

# Read by Python as it starts: the wall clock is off by what the file says, at any moment.
CLOCK = """
import time
real, path = time.time, {path!r}


def shifted():
    with open(path) as file:
        return real() + float(file.read() or 0)


time.time = shifted
"""


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """The offset of the coordinator's clock against its nodes', in seconds."""
    path = tmp_path / "offset"
    path.write_text("3600")
    (tmp_path / "sitecustomize.py").write_text(CLOCK.format(path=str(path)))
    return path


def until_renewed(leases: Sequence[Path]) -> float:
    """Seconds until every lease was."""
    before = [lease.read_bytes() for lease in leases]

    def renewed() -> bool:
        return all(lease.read_bytes() != old for lease, old in zip(leases, before, strict=True))

    return wait_until("all leases are renewed", renewed, 20)


def test_our_clock_is_off_by_an_hour_and_jumps(
    desk: Desk, hosts: VirtualHosts, clock: Path, measured: Measured
) -> None:
    """Back by two hours and forth by three: leases last as long as they should, no node is lost,
    nothing is taken for a hang.
    """
    env = {"PYTHONPATH": f"{clock.parent}{os.pathsep}{ROOT}"}
    options = budgets(lease=12, hang=60)
    job = desk.start("rank.py", "wait", options=options, env=env)
    job.wait_for_line("ready", 3)
    assert job.records[0]["time"] > time.time() + 3000
    leases = [
        hosts.home(name) / f".orchestrate/node/runs/{job.run}/{name}/attempt-1/lease"
        for name in hosts.names
    ]
    for offset_s in (-3600, 7200):
        clock.write_text(str(offset_s))
        for _ in range(2):
            measured("leases renewed after a jump", until_renewed(leases), 12)
    go_on(hosts, job)
    clean(desk, hosts, job)
    assert not job.events("Stalled")


def test_a_rank_is_named_whatever_the_clock_says(
    desk: Desk, hosts: VirtualHosts, clock: Path
) -> None:
    """An hour apart, the failure of a rank is still earlier than the end that it leads to."""
    env = {"PYTHONPATH": f"{clock.parent}{os.pathsep}{ROOT}"}
    job = desk.start("rank.py", "exit", env=env)
    ending = job.end()
    assert ending.code == 1, ending.err
    assert ending.result["failure"]["cause"] == "rank 1 on vh2 exited with code 3"
    assert sorted(ending.result["failure"]["others"]) == ["vh1/rank 0", "vh3/rank 2"]
    assert not remains(hosts, job.run)


def test_ctrl_c_after_the_clock_jumped_back(desk: Desk, hosts: VirtualHosts, clock: Path) -> None:
    """Ranks that end because of a request are not taken for ranks that failed before it."""
    env = {"PYTHONPATH": f"{clock.parent}{os.pathsep}{ROOT}"}
    job = desk.start("rank.py", "stay", env=env)
    job.wait_for_line("ready", 3)
    clock.write_text("-3600")
    job.interrupt()
    ending = job.end()
    assert (ending.code, ending.result["status"]) == (130, "stopped"), ending.err
    assert not remains(hosts, job.run)
