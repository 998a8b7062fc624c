"""A run whose connections a broker holds: whatever becomes of the broker, the run goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.contracts.transport.brokers import broker_of_its_own, broker_pid
from tests.hosts.processes import remains
from tests.hosts.running import Desk, wait_until

pytestmark = pytest.mark.hosts


def test_a_run_goes_on_when_the_broker_ends(
    desk: Desk, hosts: VirtualHosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing kept connections leaves those of a run alone; a broker that is killed costs it new
    ones, and neither a line nor the verdict. What follows has a broker again.
    """
    with broker_of_its_own(monkeypatch, begun=False):
        job = desk.start("rank.py", "wait", "before")
        job.wait_for_line("ready", len(hosts.names))
        assert "closed 0 of 3" in desk.command("connections", "close").stdout
        killed = broker_pid()
        os.kill(killed, signal.SIGKILL)
        wait_until("the broker is gone", lambda: not Path(f"/proc/{killed}").exists())
        for name in hosts.names:
            (hosts.home(name) / f"go-{job.run}").touch()
        ending = job.end()
        assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
        assert [*job.lines().values()] == [["before", "ready"]] * len(hosts.names)
        assert not remains(hosts, job.run)

        asked = ("exec", "--cluster", str(desk.cluster), "--", "hostname")
        assert desk.command(*asked).returncode == 0
        assert desk.command("connections", "list").stdout.count("idle") == len(hosts.names)
