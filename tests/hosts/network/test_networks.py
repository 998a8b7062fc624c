"""Networks that break, halve, slow down or come back in mid-run; nodes that are slow."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.faults.test_hangs import TRAIN
from tests.hosts.processes import remains
from tests.hosts.promises import clean, honest
from tests.hosts.running import Desk, Job, budgets, wait_until
from tests.time_limits import Measured, assert_within

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

HANG_S = 5.0
LINK_S = 15.0  # as without the option
LOST_S = 20.0
OVER_S = 40.0


def train(desk: Desk, *options: str) -> Job:
    """An all-reduce job on all hosts, once every rank has made progress."""
    desk.script("train.py", TRAIN)
    job = desk.start("train.py", options=options, launcher="direct")
    for rank in range(3):
        job.wait_for("Progressed", rank=rank, within_s=90)
    return job


def progress(job: Job) -> int:
    """The last step that every rank has told of."""
    return min(
        max(event["done"] for event in job.events("Progressed", rank=rank)) for rank in range(3)
    )


def test_a_data_plane_that_is_cut_in_mid_run(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """A short cut costs time only. After a longer one no rank makes progress, while SSH lives: the
    run is ended for that reason, and with the network healed the same command works.
    """
    # Links are given up later than ranks, as ever, also where both times grow with the load.
    job = train(desk, *budgets(hang=HANG_S, link=LINK_S))
    hosts.cut_data("vh1", "vh3")
    time.sleep(2)  # the time that passes is what is tested
    hosts.heal()
    before = progress(job)
    wait_until("it goes on", lambda: progress(job) > before + 20, 30)
    assert not job.events("Stalled")
    hosts.cut_all_data()
    at = time.time()
    job.wait_for("Stalled", within_s=60)
    measured("data plane cut: suspected", time.time() - at, HANG_S + 10)
    ending = job.end()
    measured("data plane cut: over", ending.at - at, HANG_S + OVER_S)
    failure = honest(desk, job, ending)
    assert failure["id"] == "OR-HANG-001"
    clean(desk, hosts, job)
    hosts.heal()
    assert desk.run("rank.py", "count", "3")[1].code == 0


def test_ssh_is_away_for_longer_than_silence(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """The node is given up although its ranks live: the others are stopped, its lease ends its
    own, and when it answers again another attempt works on all of them.
    """
    job = desk.start("rank.py", "stay", options=budgets(silence=2, lease=6))
    job.wait_for_line("ready", 3)
    hosts.cut_ssh("vh2")
    at = time.time()
    ending = job.end()
    measured("SSH away: over", ending.at - at, OVER_S)
    failure = honest(desk, job, ending)
    assert (failure["id"], failure["node"]) == ("OR-LINK-001", "vh2")
    assert ending.states == {"vh1": "stopped", "vh2": "lost", "vh3": "stopped"}
    assert remains(hosts, job.run) == remains(hosts, job.run, ["vh2"])
    wait_until("the lease ended vh2's ranks", lambda: not remains(hosts, job.run), 30)
    measured("SSH away: nothing left anywhere", time.time() - at, OVER_S)
    hosts.heal()
    assert desk.command("stop", job.run).returncode == 0


@contextmanager
def deaf(hosts: VirtualHosts, name: str) -> Iterator[None]:
    """While inside, we hear nothing of the host, though it hears us."""
    rule = ["OUTPUT", "-d", hosts.coordinator_address, "-j", "DROP"]
    assert hosts.exec(name, ["iptables", "-A", *rule]).returncode == 0
    try:
        yield
    finally:
        assert hosts.exec(name, ["iptables", "-D", *rule]).returncode == 0


def test_only_one_direction_is_cut(desk: Desk, hosts: VirtualHosts, measured: Measured) -> None:
    """For less than `silence` it costs nothing; for longer, the node is lost like any other."""
    job = desk.start("rank.py", "stay", options=budgets(lease=4, silence=3))
    job.wait_for_line("ready", 3)
    with deaf(hosts, "vh2"):
        time.sleep(2)  # the time that passes is what is tested
    assert not job.events("NodeLost")
    with deaf(hosts, "vh2"):
        at = time.time()
        job.wait_for("NodeLost", node="vh2", within_s=60)
        measured("one direction cut: named", time.time() - at, LOST_S)
        ending = job.end()
        failure = honest(desk, job, ending)
        assert (failure["id"], failure["node"]) == ("OR-LINK-001", "vh2")
        clean(desk, hosts, job, ["vh1", "vh3"])
        wait_until("the lease ended vh2's ranks", lambda: not remains(hosts, job.run), 40)


def test_links_stop_one_by_one_and_come_back_in_any_order(desk: Desk, hosts: VirtualHosts) -> None:
    """SSH and data of each host in turn, restored in another order: no byte is lost or doubled."""
    chance = random.Random(7)
    job = desk.start("rank.py", "count", "600", options=budgets(silence=30))
    job.wait_for_line("line 30 of rank 2", 1)
    for fault in chance.sample([hosts.cut_ssh, hosts.unplug, hosts.cut_ssh], 3):
        fault(hosts.names[chance.randrange(3)])
        time.sleep(0.5)  # a while apart
    for name in chance.sample(hosts.names, 3):
        time.sleep(0.5)
        hosts.heal(name)
    ending = job.end()
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
    clean(desk, hosts, job)


def test_a_slow_and_lossy_link(desk: Desk, hosts: VirtualHosts) -> None:
    """1 Mbit/s and 1 % loss: slower, but the same end."""
    hosts.slow_link("vh2", rate="1mbit", loss=0.01)
    at = time.time()
    job, ending = desk.run("rank.py", "count", "100")
    assert_within("1 Mbit/s and 1 % loss on one link", ending.at - at, 60)
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
    clean(desk, hosts, job)


def test_a_slow_node(desk: Desk, hosts: VirtualHosts) -> None:
    """A tenth of a CPU: nothing is taken for dead that is only slow, and Ctrl-C ends it."""
    hosts.slow_node("vh2", 10)
    at = time.time()
    job = desk.start("rank.py", "wait")
    job.wait_for_line("ready", 3)
    assert_within("a tenth of a CPU: ranks run after", time.time() - at, 60)
    asked = job.interrupt()
    ending = job.end()
    assert_within("a tenth of a CPU: Ctrl-C to the end", time.monotonic() - asked, OVER_S)
    assert (ending.code, ending.result["status"]) == (130, "stopped"), ending.err
    assert set(ending.states.values()) == {"stopped"}
    clean(desk, hosts, job)
