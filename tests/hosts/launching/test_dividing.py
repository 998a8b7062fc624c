"""Divisible work on hosts of their own: it needs no network between them, and survives a host."""

from __future__ import annotations

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.dividing import SQUARES, check_complete, records, wait_for_outputs
from tests.hosts.processes import remains
from tests.hosts.running import Desk, budgets, wait_until

pytestmark = pytest.mark.hosts


def test_nodes_need_no_network_between_them_and_may_vanish(desk: Desk, hosts: VirtualHosts) -> None:
    """The data plane is cut before the start, which does not matter; half-way one host loses its
    power: the others do what it had, the outputs are exact, and the run says it was degraded.
    """
    hosts.cut_all_data()
    options = budgets(silence=3, lease=6)
    job = desk.start_workload(SQUARES, "samples=90", "batch=3", "pause=0.05", options=options)
    wait_for_outputs(desk, job, 12, "vh2")
    hosts.unplug("vh2")
    ending = job.end(90)

    check_complete(desk, job, ending, 90, "degraded")
    assert ending.states["vh2"] == "lost"
    assert [r["rung"] for r in ending.result["ladder"] if r["outcome"] == "used"] == ["leases"]
    by = {
        host: {r["sample"] for r in records(desk, job.run, "output", host)} for host in hosts.names
    }
    assert len(by["vh2"]) < 90 // 3 + 12
    assert by["vh1"] | by["vh2"] | by["vh3"] == set(range(90))
    hosts.plug("vh2")
    assert not remains(hosts, job.run, ["vh1", "vh3"])
    wait_until("its lease ended what was on vh2", lambda: not remains(hosts, job.run), 30)
