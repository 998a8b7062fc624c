"""Ranks, supervisors, agents and whole nodes that die in mid-run: named, ended, verified."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.processes import kill_rank, look
from tests.hosts.promises import clean, go_on, honest
from tests.hosts.running import Desk, wait_until
from tests.hosts.surviving import release
from tests.time_limits import Measured

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]

NAMED_S = 5.0
OVER_S = 20.0
MEMORY_BYTES = 48 << 20

# Writes down its end, then takes memory as soon as it may.
HUNGRY = """
import os, sys, time

print("ready", flush=True)
go = os.path.expanduser("~/go-" + os.environ["ORCHESTRATE_RUN_ID"])
while not os.path.exists(go):
    time.sleep(0.02)
if os.environ["RANK"] == "1":
    print("about to take memory", flush=True)
    taken = [bytearray(os.urandom(1 << 20)) for _ in range(400)]
time.sleep(120)
"""


def test_a_rank_that_aborts(desk: Desk, hosts: VirtualHosts, measured: Measured) -> None:
    """SIGABRT, as NCCL's watchdog ends it."""
    job = desk.start("rank.py", "last-words")
    job.wait_for_line("ready", 2)
    job.wait_for_line("the last line of rank 1", 1)
    at = kill_rank(hosts, "vh2", job.run, 1, signal.SIGABRT)
    job.wait_for("RankExited", rank=1)
    measured("SIGABRT: named", time.time() - at, NAMED_S)
    ending = job.end()
    measured("SIGABRT: over", ending.at - at, OVER_S)
    cause = honest(desk, job, ending)
    assert cause["cause"] == "rank 1 on vh2 was killed by SIGABRT"
    assert cause["last_line"] == "the last line of rank 1"
    clean(desk, hosts, job)


@contextmanager
def memory_group(name: str) -> Iterator[Path]:
    """A control group with little memory, of either version."""
    legacy = Path("/sys/fs/cgroup/memory")
    root = legacy if legacy.is_dir() else Path("/sys/fs/cgroup")
    limit = "memory.limit_in_bytes" if legacy.is_dir() else "memory.max"
    group = root / name
    group.mkdir()
    try:
        if not (group / limit).exists():
            pytest.skip("hardware: this kernel has no memory controller to give away")
        (group / limit).write_text(str(MEMORY_BYTES))
        swap = group / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")
        yield group
    finally:
        wait_until("the group is empty", lambda: not (group / "cgroup.procs").read_text(), 10)
        group.rmdir()


def oom_kills(group: Path) -> int:
    """How many processes of the group the kernel killed for their memory."""
    names = ("memory.oom_control", "memory.events")
    (path,) = (group / name for name in names if (group / name).exists())
    rows = (line.split() for line in path.read_text().splitlines())
    return next(int(row[1]) for row in rows if row[0] == "oom_kill")


def test_a_rank_that_the_kernel_kills_for_its_memory(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """The OOM killer's KILL, of a rank whose control group is too small."""
    desk.script("hungry.py", HUNGRY)
    with memory_group(f"hungry-{os.getpid()}") as group:
        job = desk.start("hungry.py")
        job.wait_for_line("ready", 3)
        (inside,) = look(hosts, "vh2", run=job.run, rank=1)
        (group / "cgroup.procs").write_text(str(outside(hosts, "vh2", inside[0])))
        at = time.time()
        release(hosts, job.run, hosts.names)
        job.wait_for("RankExited", rank=1)
        measured("out of memory: named", time.time() - at, NAMED_S)
        ending = job.end()
        assert oom_kills(group) >= 1
    cause = honest(desk, job, ending)
    assert cause["cause"] == "rank 1 on vh2 was killed by SIGKILL"
    assert cause["last_line"] == "about to take memory"
    clean(desk, hosts, job)


def outside(hosts: VirtualHosts, name: str, pid: int) -> int:
    """The pid, as this machine sees it, of a process in a host."""
    init = next(host.pid for host in hosts.status() if host.name == name)
    namespace = Path(f"/proc/{init}/ns/pid").readlink()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            told = re.search(r"^NSpid:.*\t(\d+)$", (entry / "status").read_text(), re.MULTILINE)
            if (entry / "ns/pid").readlink() == namespace and told and int(told[1]) == pid:
                return int(entry.name)
    raise AssertionError(f"no process {pid} in {name}")


def test_a_killed_supervisor(desk: Desk, hosts: VirtualHosts, measured: Measured) -> None:
    """Its ranks end with it; the node is named, and another run there goes on."""
    other = desk.start("rank.py", "wait")
    other.wait_for_line("ready", 3)
    job = desk.start("rank.py", "stay")
    job.wait_for_line("ready", 3)
    record = hosts.home("vh2") / f".orchestrate/node/runs/{job.run}/vh2/attempt-1/supervisor.json"
    at = time.time()
    pid = json.loads(record.read_text())["pid"]
    assert hosts.exec("vh2", ["kill", "-KILL", str(pid)]).returncode == 0
    ending = job.end()
    measured("killed supervisor: over", ending.at - at, OVER_S)
    cause = honest(desk, job, ending)
    assert (cause["id"], cause["node"]) == ("OR-AGENT-SUPERVISOR", "vh2")
    clean(desk, hosts, job)
    go_on(hosts, other)


def test_a_node_that_reboots(desk: Desk, hosts: VirtualHosts, measured: Measured) -> None:
    """It comes back under its name with another boot id and knows nothing of the ranks: named, the
    others stopped; the same command then works.
    """
    job = desk.start("rank.py", "stay")
    job.wait_for_line("ready", 3)
    at = time.time()
    hosts.reboot("vh2")
    ending = job.end()
    measured("a node that rebooted: over", ending.at - at, 40)
    cause = honest(desk, job, ending)
    assert cause["node"] == "vh2"
    assert ending.states["vh1"] == ending.states["vh3"] == "stopped"
    assert ending.states["vh2"] in ("failed", "lost")
    clean(desk, hosts, job)
    assert desk.run("rank.py", "count", "3")[1].code == 0
