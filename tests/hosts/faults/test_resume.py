"""A coordinator may die at any moment: `resume` brings its run to the end it would have had."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.killing import Field
from tests.hosts.processes import look, remains
from tests.hosts.running import Desk, Ending, Job, budgets, open_desk, wait_until
from tests.hosts.surviving import (
    SCRIPT,
    STEPS,
    Work,
    await_moment,
    essence,
    faults,
    journal,
    log_of,
    release,
    resumed,
    written,
)
from tests.time_limits import Measured, wait_for_exit

pytestmark = pytest.mark.hosts

NODES = ("vh1", "vh2", "vh3")
SHORT = Work(NODES, steps=5, pause_s=0.05)
HELD = Work(NODES, steps=6, pause_s=0.01, held=3)
RESUMED_S = 15.0
LEASE_S = 4.0  # a coordinator that lives renews it in time, also where much else runs


class Undisturbed:
    """What a run of ``work`` comes to when nobody dies."""

    def __init__(self, desk: Desk, hosts: VirtualHosts, work: Work) -> None:
        self._hosts = hosts
        self._work = work
        release(hosts, desk.next_run, work.nodes)
        job, ending = desk.run(SCRIPT, *work.arguments)
        self.essence = essence(ending.result)
        self.check(desk.folder(job.run), ending)

    def check(self, folder: Path, ending: Ending) -> None:
        """The same end, on both sides."""
        assert ending.code == 0, ending.err
        assert essence(ending.result) == self.essence
        assert not list(faults(folder, self._hosts, self._work))


@pytest.fixture(scope="module")
def undisturbed(
    virtual_hosts: VirtualHosts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Work], Undisturbed]]:
    """Makes them, one of each work."""
    with open_desk(tmp_path_factory.mktemp("undisturbed"), virtual_hosts.inventory) as desk:
        desk.script(SCRIPT, STEPS)
        yield functools.cache(functools.partial(Undisturbed, desk, virtual_hosts))


@pytest.fixture
def short(undisturbed: Callable[[Work], Undisturbed]) -> Undisturbed:
    return undisturbed(SHORT)


@pytest.fixture
def held(undisturbed: Callable[[Work], Undisturbed]) -> Undisturbed:
    return undisturbed(HELD)


@pytest.fixture(autouse=True)
def script(desk: Desk) -> None:
    desk.script(SCRIPT, STEPS)


def start(desk: Desk, *options: str, env: Mapping[str, str] | None = None) -> Job:
    """A run whose ranks did their first steps and wait for :func:`release`."""
    job = desk.start(SCRIPT, *HELD.arguments, options=options, env=env)
    job.wait_for_line(HELD.printed(0).splitlines()[0], len(HELD.nodes))
    for rank in range(len(HELD.nodes)):
        job.wait_for_line(HELD.printed(rank).splitlines()[HELD.held - 1], 1)
    return job


def pids(hosts: VirtualHosts, run: str) -> dict[str, list[int]]:
    """The ranks, by host."""
    return {
        host: sorted(pid for pid, words in look(hosts, host, run=run) if SCRIPT in words)
        for host in hosts.names
    }


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a run, and when it was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


@pytest.mark.parametrize(
    "phase,moment",
    [
        ("connect", ("Connected", 1)),
        ("sync", ("Synced", 1)),
        ("prepare", ("Prepared", 2)),
        ("reserve", ("Prepared", 3)),
        ("reach", ("RendezvousOffered", 1)),
        ("launch", ("Launched", 1)),
        ("watch", ("Log", 6)),
        ("collect", ("NodeConcluded", 1)),
        ("clean", ("Collected", 1)),
        ("conclude", ("Swept", 3)),
    ],
)
def test_killed_in_any_phase(
    desk: Desk, short: Undisturbed, phase: str, moment: tuple[str, int], measured: Measured
) -> None:
    """Result, logs, steps and artifacts are those of an undisturbed run, and nothing is left."""
    job = desk.start(SCRIPT, *SHORT.arguments)
    await_moment(job, *moment)
    job.abandon()
    began = time.monotonic()
    _, ending = resumed(desk, job.run)
    measured(f"killed in phase {phase}: resumed and over", time.monotonic() - began, RESUMED_S)
    short.check(desk.folder(job.run), ending)
    again = [
        event["again"] for event in journal(desk.folder(job.run)) if event["type"] == "Resumed"
    ]
    assert not any(again)


def test_ranks_go_on_within_the_lease(
    desk: Desk, hosts: VirtualHosts, held: Undisturbed, measured: Measured
) -> None:
    """The same processes in the same attempt: whoever watches sees the log continue."""
    job = start(desk)
    before = pids(hosts, job.run)
    job.abandon()
    began = time.monotonic()
    again = desk.resume(job.run)
    again.wait_for("Connected", 3)
    measured("resumed: all nodes are followed again", time.monotonic() - began, RESUMED_S)
    assert pids(hosts, job.run) == before
    assert [len(found) for found in before.values()] == [1, 1, 1]
    release(hosts, job.run, HELD.nodes)
    held.check(desk.folder(job.run), again.end())
    assert not again.events("RankStarted")
    assert not list(desk.folder(job.run).glob("logs/*/attempt-2"))


def test_a_second_attempt_after_the_lease(
    desk: Desk, hosts: VirtualHosts, held: Undisturbed, measured: Measured
) -> None:
    """Ranks stop by themselves in time; the next attempt goes on from the checkpoints, with the
    secrets of the first one, which are on no disk.
    """
    secret = f"s3cr3t-{os.urandom(8).hex()}"
    told = 'hashlib.sha256(os.environ["TOLD"].encode()).hexdigest()'
    desk.script(
        SCRIPT, STEPS.replace("import json", "import hashlib, json").replace('"from"', told)
    )
    job = start(desk, *budgets(lease=LEASE_S), "--env", "TOLD", env={"TOLD": secret})
    job.abandon()
    began = time.monotonic()
    wait_until("the ranks stopped", lambda: not remains(hosts, job.run), 20)
    measured("no coordinator: nothing left", time.monotonic() - began, LEASE_S + 6.5)
    refused = desk.command("resume", job.run)
    assert refused.returncode == 2
    assert "TOLD is not set here" in refused.stderr
    again = desk.resume(job.run, env={"TOLD": secret})
    held.check(desk.folder(job.run), again.end())
    digest = hashlib.sha256(secret.encode()).hexdigest()
    for rank, node in enumerate(HELD.nodes):
        errors = [
            log_of(desk.folder(job.run), node, f"rank-{rank}.err", attempt).read_text()
            for attempt in (1, 2)
        ]
        assert errors == [f"{digest} 0\n", f"{digest} 4\n"]
        assert (desk.folder(job.run) / f"artifacts/{node}.attempt-1/rank-{rank}.txt").exists()
    roots = [desk.home, *(hosts.home(name) for name in hosts.names)]
    search = ["grep", "-rlF", secret, *map(str, roots)]
    found = subprocess.run(search, capture_output=True, check=False)
    assert (found.returncode, found.stdout) == (1, b"")


def test_a_job_that_ended_alone_is_collected(
    desk: Desk, hosts: VirtualHosts, short: Undisturbed, measured: Measured
) -> None:
    """`--unattended continue`: nobody was there at its end, and nothing is missing; half a file
    that a killed coordinator left is gone. Afterwards `resume` changes nothing.
    """
    options = ["--unattended", "continue"]
    job = desk.start(SCRIPT, *SHORT.arguments, options=options)
    await_moment(job, "RankStarted")
    job.abandon()
    folder = desk.folder(job.run)
    (folder / "artifacts" / "vh1").mkdir()
    (folder / "artifacts" / "vh1" / ".partial-1").touch()
    wait_until("the job ended", lambda: not remains(hosts, job.run), 20)
    began = time.monotonic()
    _, ending = resumed(desk, job.run)
    measured("collected what ended alone", time.monotonic() - began, RESUMED_S)
    short.check(folder, ending)
    before = contents(folder)
    over, ending = resumed(desk, job.run)
    assert ending.code == 0
    assert "is over: nothing to resume" in over.err
    assert contents(folder) == before


def test_killed_while_stopping_then_resumed_twice(
    desk: Desk, hosts: VirtualHosts, held: Undisturbed
) -> None:
    """What was being stopped is stopped; the next `resume` begins an attempt that goes on."""
    job = start(desk)
    job.interrupt()
    await_moment(job, "StopRequested")
    job.abandon()
    _, ending = resumed(desk, job.run)
    assert (ending.code, ending.result["status"]) == (130, "stopped"), ending.err
    assert not remains(hosts, job.run)
    _, ending = resumed(desk, job.run)
    held.check(desk.folder(job.run), ending)
    assert (desk.folder(job.run) / "result.1.json").exists()


def test_stop_in_place_of_a_dead_coordinator(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """It ends the ranks and brings home what they wrote."""
    job = start(desk)
    job.abandon()
    began = time.monotonic()
    done = desk.command("stop", job.run)
    measured("stop in place of a dead coordinator", time.monotonic() - began, RESUMED_S)
    assert done.returncode == 0, done.stderr
    assert not remains(hosts, job.run)
    for rank, node in enumerate(HELD.nodes):
        (logs,) = written(hosts, HELD, node, job.run).values()
        copy = log_of(desk.folder(job.run), node, f"rank-{rank}.out", 1)
        assert copy.read_bytes() == logs[f"rank-{rank}.out"] != b""
        last = copy.read_text().split()[-1]
        artifact = desk.folder(job.run) / "artifacts" / node / f"rank-{rank}.txt"
        assert artifact.read_text().split()[0] == last


def test_attach_sees_one_run(desk: Desk, hosts: VirtualHosts) -> None:
    """Who attaches to the second coordinator sees the first one's lines too, each once."""
    job = start(desk)
    job.abandon()
    assert desk.command("attach", job.run).returncode == 75
    again = desk.resume(job.run)
    again.wait_for("Resumed")
    attached = Job(job.run, desk.popen("attach", job.run, "--json", "--follow"))
    release(hosts, job.run, HELD.nodes)
    assert (again.end().code, attached.end().code) == (0, 0)
    lines = attached.lines()
    for rank, node in enumerate(HELD.nodes):
        assert lines[f"{node}/rank-{rank}.out"] == HELD.printed(rank).splitlines()


@pytest.mark.parametrize("phase", ["reach", "watch"])
def test_a_coordinator_that_was_frozen_is_fenced(
    desk: Desk, hosts: VirtualHosts, held: Undisturbed, phase: str, measured: Measured
) -> None:
    """Another one took over meanwhile, on another machine, locks included: the old one leaves and
    harms nothing.
    """
    options = ["--exclusive", *budgets(lease=4)]
    job = desk.start(SCRIPT, *HELD.arguments, options=options)
    await_moment(job, "Reserved" if phase == "reach" else "RankStarted")
    job.interrupt(signal.SIGSTOP)
    elsewhere = desk.home.parent / "elsewhere"
    shutil.copytree(desk.home, elsewhere)
    (elsewhere / "runs" / job.run / "coordinator.json").unlink()
    again = desk.resume(job.run, env={"ORCHESTRATE_HOME": str(elsewhere)})
    again.wait_for("RankStarted" if phase == "reach" else "Connected", 3)
    job.interrupt(signal.SIGCONT)
    began = time.monotonic()
    assert wait_for_exit(job.process, 30) == 75, job.err
    measured(f"coordinator frozen in phase {phase}: fenced, left", time.monotonic() - began, 10)
    assert f"another coordinator took run {job.run} over" in job.err
    release(hosts, job.run, HELD.nodes)
    held.check(elsewhere / "runs" / job.run, again.end())


def test_a_node_rebooted_meanwhile(desk: Desk, hosts: VirtualHosts, held: Undisturbed) -> None:
    """The run fails and names it; another attempt goes on from the checkpoints."""
    job = start(desk)
    job.abandon()
    hosts.reboot("vh2")
    _, ending = resumed(desk, job.run)
    assert ending.code == 1, ending.err
    assert ending.result["failure"]["node"] == "vh2"
    assert ending.states == {"vh1": "stopped", "vh2": "failed", "vh3": "stopped"}
    assert not remains(hosts, job.run)
    release(hosts, job.run, HELD.nodes)
    _, ending = resumed(desk, job.run, "--retry")
    held.check(desk.folder(job.run), ending)


def test_a_node_without_power_meanwhile(desk: Desk, hosts: VirtualHosts, held: Undisturbed) -> None:
    """The run fails and names it; when it is back, another attempt brings home what its rank wrote
    meanwhile.
    """
    job = start(desk, "--unattended", "continue", *budgets(connect=3))
    job.abandon()
    hosts.unplug("vh3")
    _, ending = resumed(desk, job.run)
    assert ending.code == 1, ending.err
    assert ending.result["failure"]["node"] == "vh3"
    assert ending.states == {"vh1": "stopped", "vh2": "stopped", "vh3": "lost"}
    # Nobody hears it, but its rank goes on to its end.
    release(hosts, job.run, ["vh3"])
    wait_until("vh3's rank is done", lambda: not remains(hosts, job.run, ["vh3"]))
    hosts.plug("vh3")
    again = desk.resume(job.run, "--retry")
    again.wait_for("Cleared", node="vh3")
    kept = hosts.home("vh3") / f".orchestrate/node/runs/{job.run}/vh3/attempt-1/logs/rank-2.out"
    assert desk.log(job.run, "vh3", "rank-2.out") == kept.read_bytes()
    release(hosts, job.run, ["vh1", "vh2"])
    held.check(desk.folder(job.run), again.end())


def test_coordinators_killed_again_and_again(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """Rounds of `scripts/kill_loop` in which more than one coordinator may die: with a lease that
    soon runs out, with a long one, and with ranks that go on without a coordinator.
    """
    field = Field(desk, hosts, names=hosts.names[:2])
    for seed in ("ci/9", "ci/23", "ci/21"):
        outcome = field.play(seed)
        assert not outcome.faults, (seed, outcome)
        measured("killed again and again: resumed and over", outcome.seconds, RESUMED_S)
