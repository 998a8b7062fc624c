"""Runs that are stopped, in any phase and by anybody, end and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.processes import launch_held, look, remains
from tests.hosts.running import Desk, Ending, Job, budgets, wait_until
from tests.time_limits import Measured, communicate

pytestmark = pytest.mark.hosts

AGENT = "orchestrate-agent"
STOPPED_S = 10.0


def share(run: str, host: str) -> str:
    """Where ``host`` keeps what it has of ``run``."""
    return f"/root/.orchestrate/node/runs/{run}/{host}"


def agents(hosts: VirtualHosts) -> list[tuple[int, str]]:
    return [found for host in hosts.names for found in look(hosts, host, text=AGENT)]


def stopped(ending: Ending, code: int = 130) -> None:
    assert (ending.code, ending.result["status"]) == (code, "stopped"), ending.err


def interrupted(job: Job, hosts: VirtualHosts, phase: str, measured: Measured) -> None:
    """Ctrl-C now: the run ends soon, says so, and neither ranks nor agents are left."""
    began = job.interrupt()
    ending = job.end()
    measured(f"Ctrl-C during {phase}: over", time.monotonic() - began, STOPPED_S)
    stopped(ending)
    assert {node["reason"] for node in ending.result["nodes"]} == {"no rank was started"}
    assert not remains(hosts, job.run)
    wait_until("the agents left", lambda: not agents(hosts), 10)


def test_interrupted_while_connecting(desk: Desk, hosts: VirtualHosts, measured: Measured) -> None:
    """A host that does not answer does not hold up the end."""
    hosts.cut_ssh("vh3")
    job = desk.start("rank.py", "stay")
    job.wait_for("Connected", 2)
    interrupted(job, hosts, "connect", measured)


def test_interrupted_while_syncing(desk: Desk, hosts: VirtualHosts, measured: Measured) -> None:
    """A half-sent tree is left in peace, and the next run completes it."""
    (desk.project / "large.bin").write_bytes(os.urandom(16 << 20))
    job = desk.start("rank.py", "stay", "0")
    hosts.slow_link("vh2", rate="16mbit")
    job.wait_for("Synced", 2)
    assert not job.events("Synced", node="vh2")
    interrupted(job, hosts, "sync", measured)
    hosts.heal("vh2")
    _, ending = desk.run("rank.py", "stay", "0")
    assert ending.code == 0, ending.err


def test_interrupted_while_launching(desk: Desk, hosts: VirtualHosts, measured: Measured) -> None:
    """A launch that is half-way when the run ends is waited for, and what it started is ended."""
    run = desk.next_run
    with launch_held(hosts, "vh2", share(run, "vh2")):
        job = desk.start("rank.py", "stubborn", options=budgets(grace=3))
        job.wait_for_line("ready", 2)
        assert not job.events("Launched", node="vh2")
        began = job.interrupt()
        job.wait_for_line("told", 2)
    ending = job.end()
    measured("Ctrl-C during launch: over", time.monotonic() - began, 3 + STOPPED_S)
    stopped(ending)
    assert set(ending.states.values()) == {"stopped"}
    assert not remains(hosts, run)
    wait_until("the agents left", lambda: not agents(hosts), 10)
    assert not remains(hosts, run)


def test_interrupted_while_watching_beside_another_run(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """Another run of the same user on the same hosts goes on and succeeds."""
    other = desk.start("rank.py", "wait")
    job = desk.start("rank.py", "stay")
    for started in (other, job):
        started.wait_for_line("ready", 3)
    began = job.interrupt()
    ending = job.end()
    measured("Ctrl-C during watch: over", time.monotonic() - began, STOPPED_S)
    stopped(ending)
    assert set(ending.states.values()) == {"stopped"}
    assert not remains(hosts, job.run)
    assert {host: len(found) for host, found in remains(hosts, other.run).items()} == dict.fromkeys(
        hosts.names, 2
    )
    for name in hosts.names:
        (hosts.home(name) / f"go-{other.run}").touch()
    assert other.end().code == 0
    assert not remains(hosts, other.run)


def test_interrupted_twice(desk: Desk, hosts: VirtualHosts, measured: Measured) -> None:
    """Ranks that ignore TERM get their grace at the first, and none at the second."""
    job = desk.start("rank.py", "stubborn", options=budgets(grace=60))
    job.wait_for_line("ready", 3)
    job.interrupt()
    job.wait_for("StopRequested", 1)
    began = job.interrupt()
    ending = job.end()
    measured("second Ctrl-C: over", time.monotonic() - began, STOPPED_S)
    stopped(ending)
    assert not remains(hosts, job.run)


def test_terminated(desk: Desk, hosts: VirtualHosts) -> None:
    """TERM ends a run as gracefully as Ctrl-C, and the code tells them apart."""
    job = desk.start("rank.py", "stay")
    job.wait_for_line("ready", 3)
    job.interrupt(signal.SIGTERM)
    stopped(job.end(), 143)
    assert not remains(hosts, job.run)


def test_stop_after_the_coordinator_was_killed(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """`stop RUN` finishes the work of a coordinator that is gone, and verifies it."""
    job = desk.start("rank.py", "stubborn")
    job.wait_for_line("ready", 3)
    job.abandon()
    assert len(remains(hosts, job.run)) == 3
    at = time.monotonic()
    done = desk.command("stop", job.run)
    measured("stop without a coordinator", time.monotonic() - at, 30)
    assert done.returncode == 0, done.stderr
    assert not remains(hosts, job.run)
    assert desk.command("show", job.run).stdout.startswith("stopped")
    result = json.loads((desk.folder(job.run) / "result.json").read_text())
    assert [node["reason"] for node in result["nodes"]] == [
        "stopped by orchestrate; verified clean"
    ] * 3


def test_stop_after_the_coordinator_was_killed_while_launching(
    desk: Desk, hosts: VirtualHosts
) -> None:
    """A launch that nobody waits for any more starts nothing after `stop` said clean."""
    run = desk.next_run
    with launch_held(hosts, "vh2", share(run, "vh2")):
        job = desk.start("rank.py", "stay")
        job.wait_for("Launched", 2)
        job.abandon()
        stopping = desk.popen("stop", run)
        wait_until("vh1 is clean", lambda: not remains(hosts, run, ["vh1"]), 20)
    _, err = communicate(stopping, 60)
    assert stopping.returncode == 0, err
    wait_until("the agents left", lambda: not agents(hosts), 10)
    assert not remains(hosts, run)


def test_the_commands_about_a_run(desk: Desk, hosts: VirtualHosts, measured: Measured) -> None:
    """attach, ps, logs, stop, show and clean, from other processes, on a run that goes on."""
    job = desk.start("rank.py", "wait", "several", "lines")
    job.wait_for_line("ready", 3)
    run = job.run
    attached = Job(run, desk.popen("attach", run, "--json", "--follow"))
    assert f"{run}  running" in desk.command("ps").stdout
    assert (
        desk.command("logs", run, "--ranks", "1", "--no-prefix").stdout == "several\nlines\nready\n"
    )
    assert desk.command("logs", run, "--grep", "^l", "--nodes", "vh3").stdout == "[vh3/2] lines\n"
    folded = desk.command("logs", run, "--fold").stdout
    assert folded.count("ready") == 1
    at = time.monotonic()
    assert desk.command("stop", run).returncode == 0
    measured("stop of a run that goes on", time.monotonic() - at, STOPPED_S)
    stopped(job.end(), 143)
    assert not remains(hosts, run)
    replayed = attached.end()
    assert replayed.code == 143
    again = desk.command("attach", run, "--json", "--follow")
    assert again.returncode == 143
    assert attached.lines() == job.lines()
    assert len(job.lines()["vh2/rank-1.out"]) == 3
    assert desk.command("show", run).stdout.startswith("stopped")
    assert all((hosts.home(name) / ".orchestrate/node/runs" / run).is_dir() for name in hosts.names)
    cleaned = desk.command("clean", run)
    assert cleaned.returncode == 0, cleaned.stderr
    assert not any((hosts.home(n) / ".orchestrate/node/runs" / run).exists() for n in hosts.names)
    assert not desk.folder(run).exists()
