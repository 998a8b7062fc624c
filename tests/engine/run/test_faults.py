"""The coordinator against processes of its own machine that die, hang or lie."""

from __future__ import annotations

import json
import os
import resource
import signal
import time

import pytest

from tests.hosts.processes import Here, children, launch_held, remains
from tests.hosts.running import Desk, Job, budgets, wait_until
from tests.time_limits import Measured

pytestmark = pytest.mark.processes

HERE = Here()


def supervisors(desk: Desk, job: Job) -> dict[str, int]:
    """The pid of each node's supervisor."""
    paths = desk.node(job.run).glob("*/attempt-1/supervisor.json")
    return {path.parts[-3]: json.loads(path.read_text())["pid"] for path in paths}


def test_killed_agents_cost_no_byte(desk: Desk) -> None:
    """KILL for both agents, again and again: new ones take over where the logs ended."""
    job = desk.start("rank.py", "count", "300")
    for number in (20, 90, 160):
        job.wait_for_line(f"line {number} of rank 1", 1)
        wait_until("both agents", lambda: len(children(job.process.pid)) == 2 or job.over)
        agents = children(job.process.pid)
        assert len(agents) == 2
        for agent in agents:
            os.kill(agent, signal.SIGKILL)
    ending = job.end()
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
    for rank, node in enumerate(("n1", "n2")):
        expected = "".join(f"line {number} of rank {rank}\n" for number in range(300))
        assert desk.log(job.run, node, f"rank-{rank}.out") == expected.encode()
    assert not remains(HERE, job.run)


def test_a_killed_supervisor_is_named(desk: Desk, measured: Measured) -> None:
    """Its node is the cause; what it left running is ended and verified on both nodes."""
    job = desk.start("rank.py", "stay")
    job.wait_for_line("ready", 2)
    at = time.time()
    os.kill(supervisors(desk, job)["n2"], signal.SIGKILL)
    ending = job.end()
    measured("killed supervisor: run over", ending.at - at, 20)
    assert (ending.code, ending.result["status"]) == (1, "failed")
    failure = ending.result["failure"]
    assert (failure["id"], failure["node"]) == ("OR-AGENT-SUPERVISOR", "n2")
    assert failure["remedy"]
    assert not remains(HERE, job.run)


def test_a_stopped_rank_is_ended(desk: Desk, measured: Measured) -> None:
    """A rank under SIGSTOP answers no TERM; it is ended all the same."""
    job = desk.start("rank.py", "stay", options=budgets(grace=1))
    job.wait_for_line("ready", 2)
    os.kill(job.events("RankStarted", rank=1)[0]["pid"], signal.SIGSTOP)
    at = job.interrupt()
    ending = job.end()
    measured("Ctrl-C with a frozen rank: over", time.monotonic() - at, 10)
    assert (ending.code, ending.result["status"]) == (130, "stopped")
    assert not remains(HERE, job.run)


FLOOD = """
import resource, time
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
for _ in range(40):
    print("x" * 100_000, flush=True)
time.sleep(120)
"""


def test_a_full_disk_here_ends_the_run(desk: Desk) -> None:
    """The coordinator can store no more logs: it says so, ends the ranks and keeps what it has."""
    desk.script("flood.py", FLOOD)
    job = desk.start("flood.py", options=["--no-follow"])
    limits = (2 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    resource.prlimit(job.process.pid, resource.RLIMIT_FSIZE, limits)
    ending = job.end()
    assert (ending.code, ending.result["status"]) == (75, "failed")
    assert ending.result["failure"]["id"] == "OR-STORE-011"
    assert "File too large" in ending.err
    logs = (desk.folder(job.run) / "logs").glob("*/rank-*.out")
    assert max(log.stat().st_size for log in logs) > 1 << 20
    assert not remains(HERE, job.run)


def test_a_run_that_takes_too_long_is_ended(desk: Desk) -> None:
    """--timeout: exit 124, the phase named, nothing left."""
    job, ending = desk.run("rank.py", "stay", options=["--timeout", "2"])
    assert (ending.code, ending.result["status"]) == (124, "failed")
    assert ending.result["failure"]["id"] == "OR-TIME-001"
    assert "the job took longer than 2 s" in ending.result["failure"]["cause"]
    assert not remains(HERE, job.run)


def test_the_third_interrupt_leaves_at_once(desk: Desk, measured: Measured) -> None:
    """A launch hangs: the third Ctrl-C does not wait, and tells what finishes the job."""
    run = desk.next_run
    with launch_held(HERE, "here", str(desk.node(run) / "n2")):
        job = desk.start("rank.py", "stay")
        job.wait_for("Launched", node="n1")
        for count in (1, 2):
            job.interrupt()
            job.wait_for("StopRequested", count)
        at = job.interrupt()
        ending = job.end()
        measured("third Ctrl-C: left", time.monotonic() - at, 3)
    assert ending.code == 130
    assert f"orchestrate stop {run}" in ending.err
    assert desk.command("stop", run).returncode == 0
    assert not remains(HERE, run)
