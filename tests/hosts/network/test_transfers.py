"""Code that travels while links break, and to the same hosts from two runs at once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.network.test_logins import break_link
from tests.hosts.promises import clean
from tests.hosts.running import Desk, open_desk, wait_until
from tests.time_limits import budget

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]

# Tells the digest of all code that it finds beside itself.
READ = """
import hashlib, os, sys
names = sorted(name for name in os.listdir(".") if name.startswith("part"))
data = b"".join(open(name, "rb").read() for name in names)
print(hashlib.sha256(data).hexdigest(), flush=True)
"""


def code(desk: Desk, seed: int) -> str:
    """A few megabytes that do not compress, and their digest."""
    whole = hashlib.sha256()
    desk.script("read.py", READ)
    for number in range(6):
        data = hashlib.shake_128(b"%d %d" % (seed, number)).digest(700_000)
        (desk.project / f"part-{number}.bin").write_bytes(data)
        whole.update(data)
    return whole.hexdigest()


def arrived(hosts: VirtualHosts, name: str) -> int:
    """Bytes of code on a host, complete or not."""
    root = hosts.home(name) / ".orchestrate/node/snapshots"
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("at_bytes", [1, 2_500_000])
def test_a_sync_that_is_cut(desk: Desk, hosts: VirtualHosts, at_bytes: int) -> None:
    """The link breaks while code travels: what runs then is exactly what was sent."""
    expected = code(desk, at_bytes)
    hosts.slow_link("vh2", rate=f"{16_000 / budget(1):.0f}kbit")  # slow enough to be cut
    enough = arrived(hosts, "vh2") + at_bytes
    job = desk.start("read.py")
    wait_until("so much arrived", lambda: arrived(hosts, "vh2") >= enough, 30)
    assert not job.events("Synced", node="vh2"), "too late to cut anything"
    break_link(hosts, "vh2")
    ending = job.end()
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
    for rank, name in enumerate(hosts.names):
        assert desk.log(job.run, name, f"rank-{rank}.out").decode() == f"{expected}\n"
    clean(desk, hosts, job)


def test_two_runs_sync_at_once(desk: Desk, hosts: VirtualHosts, tmp_path: Path) -> None:
    """The same hosts get two trees at the same time; each run reads its own."""
    hosts.slow_link("vh2", rate="40mbit")
    first = code(desk, 10)
    (tmp_path / "other").mkdir()
    with open_desk(tmp_path / "other", hosts.inventory) as other:
        second = code(other, 11)
        jobs = [desk.start("read.py"), other.start("read.py")]
        endings = [job.end() for job in jobs]
        assert [ending.code for ending in endings] == [0, 0], endings
        for place, job, expected in zip((desk, other), jobs, (first, second), strict=True):
            for rank, name in enumerate(hosts.names):
                assert place.log(job.run, name, f"rank-{rank}.out").decode() == f"{expected}\n"
            clean(place, hosts, job)
    assert first != second
