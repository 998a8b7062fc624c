"""Processes that do everything to be forgotten are found and ended all the same."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.processes import look, remains
from tests.hosts.running import Desk, Job, wait_until
from tests.time_limits import Measured

pytestmark = pytest.mark.hosts

CLEAN_S = 30.0

# Rank 1 starts one that has no environment, no session in common with anybody, and no parents.
ESCAPE = """
import os, sys, time

if os.environ["RANK"] == "1" and os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve("/bin/sleep", [sys.argv[1], "300"], {})
    os._exit(0)
print("ready", flush=True)
time.sleep(float(sys.argv[2]))
"""


def escaped(hosts: VirtualHosts, mark: str) -> list[int]:
    """Pids of the escaped on vh2; the ranks, which name it too, are not among them."""
    found = look(hosts, "vh2", text=mark)
    return [pid for pid, words in found if words.startswith(mark)]


def records(hosts: VirtualHosts, job: Job) -> list[dict[str, Any]]:
    """What the supervisor of vh2 wrote."""
    run = hosts.home("vh2") / ".orchestrate/node/runs" / job.run / "vh2"
    (events,) = run.glob("attempt-*/events.jsonl")
    return [json.loads(line) for line in events.read_text().splitlines()]


@pytest.fixture
def script(desk: Desk) -> str:
    return desk.script("escape.py", ESCAPE)


def test_an_escaped_process_ends_with_its_run(desk: Desk, hosts: VirtualHosts, script: str) -> None:
    """The ranks succeed and leave one behind: the supervisor ends it before it concludes."""
    job = desk.start(script, f"mark-{desk.next_run}", "1")
    ending = job.end()
    (concluded,) = (r for r in records(hosts, job) if r["event"] == "concluded")
    assert ending.code == 0, ending.err
    assert (concluded["mechanism"], concluded["clean"]) == ("cgroup", True)
    assert escaped(hosts, f"mark-{job.run}") == []


def test_an_escaped_process_outlives_its_supervisor_but_not_the_run(
    desk: Desk, hosts: VirtualHosts, script: str, measured: Measured
) -> None:
    """The supervisor is killed, so that nothing but the control group knows of it."""
    mark = f"mark-{desk.next_run}"
    job = desk.start(script, mark, "120")
    job.wait_for_line("ready", 3)
    wait_until("one has escaped", lambda: escaped(hosts, mark))
    at = time.time()
    # Its last argument is the run and the node, as `ps` shows it.
    assert len(look(hosts, "vh2", text=f"{job.run}/vh2\0", signal=signal.SIGKILL)) == 1
    ending = job.end()
    measured("clean after the supervisor was killed", ending.at - at, CLEAN_S)
    assert ending.code == 1, ending.err
    assert escaped(hosts, mark) == []
    assert not remains(hosts, job.run)
