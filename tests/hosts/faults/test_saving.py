"""Ranks that save when they are first asked to end, and leave at once when asked again."""

from __future__ import annotations

import signal

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.processes import remains
from tests.hosts.running import Desk, Ending, Job
from tests.hosts.saving import saving

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

PAIR = ("vh1", "vh2")
FAILING = 2  # the first rank of the node that is not the head
# Rank 2 fails once it may; the others stay until they are asked to end.
FAIL = """
go = os.path.expanduser("~/go-" + os.environ["ORCHESTRATE_RUN_ID"])
while not (rank == "2" and os.path.exists(go)):
    time.sleep(0.05)
sys.exit(3)
"""
SAVE = saving("OUTPUT", seconds="float(sys.argv[1])", stay=FAIL)


def start(desk: Desk, launcher: str, save_s: float, grace_s: float) -> Job:
    """Four ranks on two hosts, all of them ready."""
    desk.script("save.py", SAVE)
    options = ("--nodes", ",".join(PAIR), "--ranks-per-node", "2", "--budget", f"grace={grace_s:g}")
    job = desk.start("save.py", f"{save_s:g}", launcher=launcher, options=options)
    job.wait_for_line("ready", 4, within_s=120)
    return job


def saved(desk: Desk, job: Job) -> dict[str, list[str]]:
    """What came home of each node."""
    artifacts = desk.folder(job.run) / "artifacts"
    return {name: sorted(p.name for p in (artifacts / name).glob("saved-*")) for name in PAIR}


def asked(job: Job) -> dict[str, list[str]]:
    """What each rank wrote when it was asked to end."""
    lines = job.lines()
    return {file: said[1:] for file, said in lines.items() if file.endswith(".out")}


def temporary_files(hosts: VirtualHosts) -> dict[str, list[str]]:
    """What lies in each host's temporary directory, but for the folder of the machine's locks."""
    found = {name: hosts.exec(name, ["ls", "-A", "/tmp"]).stdout.split() for name in PAIR}
    return {
        name: [entry for entry in entries if not entry.startswith("orchestrate-0-")]
        for name, entries in found.items()
    }


def fail_one(job: Job, hosts: VirtualHosts) -> Ending:
    (hosts.home("vh2") / f"go-{job.run}").touch()
    return job.end(120)


# With Ray a grace that is shorter, and one that is longer, than what its driver waits for.
@pytest.mark.parametrize(
    "launcher,grace_s", [("direct", 10.0), ("torchrun", 40.0), ("ray", 4.0), ("ray", 30.0)]
)
def test_the_others_of_a_failed_rank_save(
    desk: Desk, hosts: VirtualHosts, launcher: str, grace_s: float
) -> None:
    """On the failed rank's node and on the other: each is asked once, and what it saved is home."""
    before = temporary_files(hosts)
    job = start(desk, launcher, 1.0, grace_s)
    ending = fail_one(job, hosts)

    failure = ending.result["failure"]
    assert (failure["node"], failure["rank"]) == ("vh2", FAILING), ending.err
    assert failure["cause"] == "rank 2 on vh2 exited with code 3"
    assert asked(job) == {
        "vh1/rank-0.out": ["asked 1"],
        "vh1/rank-1.out": ["asked 1"],
        "vh2/rank-2.out": [],
        "vh2/rank-3.out": ["asked 1"],
    }
    assert saved(desk, job) == {"vh1": ["saved-0", "saved-1"], "vh2": ["saved-3"]}
    assert not remains(hosts, job.run, PAIR)
    assert temporary_files(hosts) == before


@pytest.mark.parametrize("launcher", ["torchrun", "ray"])
def test_all_save_when_the_user_stops_the_run(
    desk: Desk, hosts: VirtualHosts, launcher: str
) -> None:
    before = temporary_files(hosts)
    job = start(desk, launcher, 1.0, 30.0)
    job.interrupt(signal.SIGINT)
    ending = job.end(120)

    assert (ending.code, ending.result["status"]) == (130, "stopped"), ending.err
    assert set(map(tuple, asked(job).values())) == {("asked 1",)}
    assert saved(desk, job) == {"vh1": ["saved-0", "saved-1"], "vh2": ["saved-2", "saved-3"]}
    assert not remains(hosts, job.run, PAIR)
    assert temporary_files(hosts) == before
