"""The fabric probe before the launch, and the watch over links in mid-run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.faults.test_hangs import TRAIN
from tests.hosts.processes import remains
from tests.hosts.running import Desk, Ending, Job, budgets
from tests.time_limits import Measured

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

NAMED_S = 30.0
LINK_S = 4.0
RESYNC_S = 1.0


def probed(job: Job) -> dict[str, Any]:
    """What the only probe of a run came to."""
    (event,) = job.events("FabricProbed")
    return event


def refused(desk: Desk, hosts: VirtualHosts, measured: Measured) -> tuple[dict[str, Any], Ending]:
    """The probe and the end of a run that needs a fabric that it does not have."""
    job, ending = desk.run("rank.py", "count", "1", probe=True)
    found = probed(job)
    assert not found["ok"]
    assert (ending.code, ending.result["status"]) == (4, "failed"), ending.err
    assert ending.result["failure"]["id"] == "OR-FABRIC-001"
    assert ending.result["failure"]["cause"] == found["reason"]
    assert not job.events("Launched")
    assert not remains(hosts, job.run), "nothing of the trial is left"
    measured("fabric probe: who is at fault", found["seconds"], NAMED_S)
    return found, ending


def test_a_healthy_fabric_is_proven_once_and_watched(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """A real all-reduce over all ranks, which the next run on the same nodes does not repeat. A
    link that breaks in mid-run is named; the ranks would wait in an all-reduce for half an hour.
    """
    desk.script("train.py", TRAIN)
    options = budgets(link=LINK_S)
    job = desk.start("train.py", options=options, launcher="direct", probe=True)
    for rank in range(3):
        job.wait_for("Progressed", rank=rank, within_s=90)
    proven = probed(job)
    assert (proven["ok"], proven["cached"]) == (True, False)
    assert proven["busbw_gbps"] > 0
    assert proven["floor_gbps"] is None, "nobody published what virtual hosts should reach"
    (kept,) = (desk.home / "cache" / "fabric").iterdir()
    assert [n["name"] for n in json.loads(kept.read_text())["key"]["nodes"]] == hosts.names

    hosts.cut_data("vh2", "vh3")
    at = time.time()
    job.wait_for("LinksBroken", within_s=60)
    measured("link cut in mid-run: named", time.time() - at, LINK_S + 10)
    (event,) = job.events("LinksBroken")
    assert sorted(map(tuple, event["links"])) == [("vh2", "vh3"), ("vh3", "vh2")]
    ending = job.end()
    assert (ending.code, ending.result["failure"]["id"]) == (1, "OR-NET-002"), ending.err
    assert "vh2 and vh3 do not reach each other any more" in ending.result["failure"]["cause"]
    assert not remains(hosts, job.run)

    hosts.heal()
    job, ending = desk.run("rank.py", "count", "1", probe=True)
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
    again = probed(job)
    assert (again["ok"], again["cached"]) == (True, True)
    # Absent where every node was synced before the last was probed: phases overlap.
    took_s = ending.result["timings"].get("sync", 0.0)
    measured("re-sync of an unchanged tree", took_s, RESYNC_S)
    assert again["busbw_gbps"] == proven["busbw_gbps"]


def test_a_link_between_two_nodes_is_named(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """Neither of them is the head, so that the rendezvous is reached by all; nothing is cached."""
    hosts.cut_data("vh2", "vh3")
    found, ending = refused(desk, hosts, measured)
    assert sorted(map(tuple, found["links"])) == [("vh2", "vh3"), ("vh3", "vh2")]
    assert found["culprits"] == []
    assert found["reason"].startswith("vh2 and vh3 cannot open a TCP connection to each other")
    assert found["reason"] in ending.err
    assert "between vh2 and vh3" in ending.result["failure"]["remedy"]
    assert not list((desk.home / "cache").glob("fabric/*"))


@contextmanager
def shut(hosts: VirtualHosts, name: str, others: Sequence[str]) -> Iterator[None]:
    """While inside, the host drops connections that other hosts begin."""
    rules = [
        ["INPUT", "-s", hosts.address(other), "-p", "tcp", "--syn", "-j", "DROP"]
        for other in others
    ]
    for rule in rules:
        assert hosts.exec(name, ["iptables", "-A", *rule]).returncode == 0
    try:
        yield
    finally:
        for rule in rules:
            assert hosts.exec(name, ["iptables", "-D", *rule]).returncode == 0


def test_a_host_behind_a_firewall_is_named(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """It reaches everybody, nobody reaches it."""
    with shut(hosts, "vh3", ["vh1", "vh2"]):
        found, _ = refused(desk, hosts, measured)
    assert (found["culprits"], found["links"]) == (["vh3"], [])
    assert "no node can open a TCP connection to vh3" in found["reason"]
    assert "though it reaches vh1 and vh2" in found["reason"]
