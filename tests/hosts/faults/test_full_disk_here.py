"""The coordinator's own disk fills up: it says so, ends the ranks, and goes on with space again."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.processes import remains
from tests.hosts.running import Desk, Ending, Job
from tests.hosts.surviving import SCRIPT, STEPS, Work, faults, release
from tests.time_limits import Measured, scaled

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

TOLD_S = 15.0
NODES = ("vh1", "vh2", "vh3")
HELD = Work(NODES, steps=6, pause_s=0.01, held=3)

FLOOD = """
import os, time

for number in range(1000):
    os.write(1, b"line %d " % number + b"x" * 4000 + b"\\n")
time.sleep(1)
"""


class Disk:
    """A small file system, and a file that fills it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._filler = root / "filler"

    def fill(self) -> None:
        """To the last byte."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (1 << 16, 4096, 1):
                while _fits(file.fileno(), bytes(size)):
                    continue

    def free(self) -> None:
        self._filler.unlink()


def _fits(fd: int, data: bytes) -> bool:
    try:
        return os.write(fd, data) > 0
    except OSError:
        return False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    root = tmp_path / "disk"
    root.mkdir(mode=0o700)
    mounted = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(root)]
    subprocess.run(mounted, check=True, timeout=scaled(10))
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True, timeout=scaled(10))


@pytest.fixture
def desk(desk: Desk, disk: Disk) -> Desk:
    """Its home is on the small disk."""
    desk.home = disk.root / "home"
    desk.script(SCRIPT, STEPS)
    return desk


def start(desk: Desk, *options: str) -> Job:
    job = desk.start(SCRIPT, *HELD.arguments, options=options)
    for rank in range(len(NODES)):
        job.wait_for_line(HELD.printed(rank).splitlines()[HELD.held - 1], 1)
    return job


def told(ending: Ending) -> None:
    """The error names the place, and what to do."""
    assert (ending.code, ending.result["status"]) == (75, "failed"), ending.err
    assert ending.result["failure"]["id"] == "OR-STORE-011"
    assert "No space left on device" in ending.err
    assert "orchestrate resume" in ending.err


def test_before_the_run(desk: Desk, disk: Disk) -> None:
    """Refused before any contact, and nothing of a run is there."""
    desk.home.mkdir(mode=0o700)
    disk.fill()
    done = desk.command("run", "--cluster", str(desk.cluster), "--", SCRIPT, "1", "0", "-1")
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr
    assert "ORCHESTRATE_HOME" in done.stderr
    assert not list(desk.home.glob("runs/[!.]*"))


def test_in_mid_run_then_resumed(
    desk: Desk, hosts: VirtualHosts, disk: Disk, measured: Measured
) -> None:
    """The ranks are ended at once, long before their lease; afterwards the run goes on from its
    checkpoints to the result that it would have had.
    """
    job = start(desk)
    disk.fill()
    release(hosts, job.run, NODES)
    at = time.time()
    ending = job.end()
    measured("full disk here: told, and the ranks ended", ending.at - at, TOLD_S)
    told(ending)
    assert not remains(hosts, job.run)
    disk.free()
    again = desk.resume(job.run)
    assert again.end().code == 0, again.err
    swept_again = "twice in the journal: Swept"
    found = faults(desk.folder(job.run), hosts, HELD)
    assert not [fault for fault in found if not fault.startswith(swept_again)]


def test_logs_that_fill_the_disk_then_resumed(
    desk: Desk, hosts: VirtualHosts, disk: Disk, measured: Measured
) -> None:
    """A log that cannot be stored ends the run; what is here is a prefix of what was written, and
    after `resume` it is all of it, and another attempt succeeds.
    """
    desk.script("flood.py", FLOOD)
    job = desk.start("flood.py", options=["--no-follow"])
    at = time.time()
    ending = job.end()
    measured("logs that fill the disk here: told, and the ranks ended", ending.at - at, 30)
    told(ending)
    assert not remains(hosts, job.run)
    stopped = desk.command("stop", job.run)
    assert stopped.returncode == 0, stopped.stderr
    assert "No space left on device" in stopped.stderr
    for path in disk.root.rglob("*.out"):
        assert kept(hosts, job, path).startswith(path.read_bytes())
    grown = ["mount", "-o", "remount,size=64m", str(disk.root)]
    subprocess.run(grown, check=True, timeout=scaled(10))
    again = desk.resume(job.run)
    assert again.end().code == 0, again.err
    logs = list(disk.root.rglob("*.out"))
    assert len(logs) == written(hosts, job)
    for path in logs:
        assert path.read_bytes() == kept(hosts, job, path)


def written(hosts: VirtualHosts, job: Job) -> int:
    """How many logs the nodes have: of the first attempt, too, unless a rank was ended before it
    wrote anything.
    """
    runs = [hosts.home(node) / f".orchestrate/node/runs/{job.run}/{node}" for node in NODES]
    first, second = (
        [log for run in runs for log in run.glob(f"attempt-{n}/logs/*.out") if log.stat().st_size]
        for n in (1, 2)
    )
    assert first
    assert len(second) == len(NODES)
    return len(first) + len(second)


def kept(hosts: VirtualHosts, job: Job, path: Path) -> bytes:
    """The same log, as its node has it."""
    node, *attempt = path.relative_to(path.parents[path.parts[::-1].index("logs") - 1]).parts[:-1]
    number = attempt[0] if attempt else "attempt-1"
    root = hosts.home(node) / f".orchestrate/node/runs/{job.run}/{node}/{number}/logs"
    return (root / path.name).read_bytes()
