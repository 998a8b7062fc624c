"""Disks of nodes that are full or cannot be written: told, survived, and made good."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts
from virtual_hosts_lib.state import Options

from tests.hosts.conftest import RaiseHosts
from tests.hosts.processes import kill_rank, remains
from tests.hosts.promises import clean
from tests.hosts.running import RANK, Desk, Ending, Job, budgets, open_desk, wait_until
from tests.time_limits import Measured

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

TOLD_S = 15.0
ENDED_S = 15.0

# Rank 1 writes until its disk refuses; then it fails because of that, or stays.
FLOOD = """
import os, sys, time

try:
    for number in range(1_000_000 if os.environ["RANK"] == "1" else 1):
        os.write(1, b"line %d " % number + b"x" * 4000 + b"\\n")
except OSError:
    if sys.argv[1] == "fail":
        raise
time.sleep(120)
"""


@pytest.fixture(scope="module")
def small_hosts(
    raise_hosts: RaiseHosts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VirtualHosts]:
    """Two hosts, small1 and small2, with homes of a few megabytes."""
    options = Options(count=2, name_prefix="small", python=sys.executable, home_size="6m")
    with raise_hosts(tmp_path_factory.mktemp("small-hosts"), options) as hosts:
        yield hosts


@pytest.fixture
def hosts(small_hosts: VirtualHosts) -> Iterator[VirtualHosts]:
    yield small_hosts
    small_hosts.heal()
    for name in small_hosts.names:
        said = small_hosts.exec(name, ["sh", "-c", "mount -o remount,rw ~; rm -rf ~/.orchestrate"])
        assert said.returncode == 0, said.stderr


@pytest.fixture
def desk(hosts: VirtualHosts, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path, hosts.inventory) as desk:
        desk.script("rank.py", RANK)
        desk.script("flood.py", FLOOD)
        yield desk


def refused(job: Job, ending: Ending, hosts: VirtualHosts) -> str:
    """The cause, when a run was refused because of small2's disk before anything was started."""
    assert (ending.code, ending.result["status"]) == (4, "failed"), ending.err
    failure = ending.result["failure"]
    assert failure["node"] == "small2"
    assert failure["remedy"]
    assert not job.events("Launched")
    assert not remains(hosts, job.run)
    return str(failure["cause"])


def share(hosts: VirtualHosts, job: Job) -> Path:
    """Where small2 keeps the run."""
    return hosts.home("small2") / f".orchestrate/node/runs/{job.run}/small2"


def until_full(hosts: VirtualHosts, job: Job) -> None:
    """Until the rank's log stands still because no byte fits any more. A probe that stayed would be
    the room that the next one finds.
    """
    probe = ["sh", "-c", "echo 0123456789 > ~/probe; fits=$?; rm -f ~/probe; exit $fits"]
    job.wait_for("RankStarted", 2)
    wait_until("the disk is full", lambda: hosts.exec("small2", probe).returncode != 0)


def until_renewed(lease: Path) -> None:
    before = lease.stat().st_mtime_ns
    wait_until("the lease is renewed", lambda: lease.stat().st_mtime_ns != before, 10)


@pytest.mark.parametrize("moment", ["agent", "sync"])
def test_a_full_disk_before_launch(
    desk: Desk, hosts: VirtualHosts, moment: str, measured: Measured
) -> None:
    """Whether the agent or the code finds no room: the node is named and what to do, and once
    there is space the same command works.
    """
    if moment == "sync":
        assert desk.run("rank.py", "count", "1")[1].code == 0
        (desk.project / "new.bin").write_bytes(bytes(range(256)) * 400)
    hosts.fill_disk("small2")
    at = time.time()
    job, ending = desk.run("rank.py", "stay")
    measured(f"full disk, {moment}: refused", ending.at - at, TOLD_S)
    cause = refused(job, ending, hosts)
    assert "no space" in cause or "is full" in cause
    hosts.heal("small2")
    assert desk.run("rank.py", "count", "1")[1].code == 0


def test_a_read_only_disk(desk: Desk, hosts: VirtualHosts) -> None:
    """As a disk is after an error: named before anything starts."""
    assert desk.run("rank.py", "count", "1")[1].code == 0
    assert hosts.exec("small2", ["sh", "-c", "mount -o remount,ro,bind ~"]).returncode == 0
    job, ending = desk.run("rank.py", "stay")
    assert "Read-only file system" in refused(job, ending, hosts)


def test_a_rank_that_fails_because_the_disk_is_full(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """Its own last words are the cause: room for them, and for our records, was set aside."""
    job = desk.start("flood.py", "fail")
    until_full(hosts, job)
    at = time.time()
    ending = job.end()
    measured("rank failed on a full disk: run over", ending.at - at, ENDED_S)
    assert (ending.code, ending.result["status"]) == (1, "failed"), ending.err
    failure = ending.result["failure"]
    assert (failure["node"], failure["rank"]) == ("small2", 1)
    assert failure["last_line"] == "OSError: [Errno 28] No space left on device"
    assert ending.states == {"small1": "stopped", "small2": "failed"}
    clean(desk, hosts, job)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_run_on_a_full_disk_can_be_ended(
    desk: Desk, hosts: VirtualHosts, how: str, measured: Measured
) -> None:
    """Leases are renewed, a dead rank is noticed, Ctrl-C ends it, all verified: nothing of that
    needs more space than there is.
    """
    job = desk.start("flood.py", "stay", options=budgets(lease=4))
    until_full(hosts, job)
    until_renewed(share(hosts, job) / "attempt-1/lease")
    until_renewed(share(hosts, job) / "attempt-1/lease")
    assert not job.events("RankExited")
    at = time.time()
    if how == "stop":
        job.interrupt()
    else:
        kill_rank(hosts, "small2", job.run, 1, signal.SIGKILL)
    ending = job.end()
    measured(f"full disk, {how}: run over", ending.at - at, ENDED_S)
    status = {"stop": (130, "stopped"), "kill": (1, "failed")}[how]
    assert (ending.code, ending.result["status"]) == status, ending.err
    clean(desk, hosts, job)
