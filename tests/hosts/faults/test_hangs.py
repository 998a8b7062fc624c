"""Ranks that make no progress are noticed, explained and ended; ranks that do are left alone."""

from __future__ import annotations

import json
import signal
import time

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.processes import kill_rank, remains
from tests.hosts.running import Desk, Ending, Job, budgets, wait_until
from tests.time_limits import Measured

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

HANG_S = 8.0
NAMED_S = HANG_S + 6.0
CLEAN_S = 30.0

# Every step ends with an all-reduce over gloo; `--sleeper` stops coming after 20 steps.
TRAIN = """
import os, sys, time
import torch
import torch.distributed as dist
import orchestrate_kit as kit


def load_batch():
    time.sleep(600)


dist.init_process_group("gloo")
rank = dist.get_rank()
total = torch.ones(4)
for step in range(100_000):
    if step == 20 and sys.argv[1:] == [f"--sleeper={rank}"]:
        load_batch()
    dist.all_reduce(total)
    total.fill_(1.0)
    kit.progress(step, 100_000, "steps")
    time.sleep(0.05)
"""


def start(desk: Desk, *words: str, launcher: str = "torchrun") -> Job:
    """The training job on all hosts, once every rank has made progress."""
    desk.script("train.py", TRAIN)
    options = budgets(hang=HANG_S)
    job = desk.start("train.py", *words, options=options, launcher=launcher)
    for rank in range(3):
        job.wait_for("Progressed", rank=rank, within_s=90)
    return job


def hang(ending: Ending) -> dict[str, object]:
    """The first cause, of a run that was ended because of a hang."""
    assert (ending.code, ending.result["status"]) == (1, "failed"), ending.err
    found = ending.result["failure"]
    assert isinstance(found, dict)
    assert found["id"] == "OR-HANG-001", ending.err
    return found


@pytest.mark.parametrize("launcher", ["torchrun", "direct"])
def test_a_frozen_rank_is_named_and_the_rest_is_stopped(
    desk: Desk, hosts: VirtualHosts, launcher: str, measured: Measured
) -> None:
    """SIGSTOP of one rank of an all-reduce job: node, rank and reason within seconds after the
    limit, the evidence in the run folder, nothing left on any host.
    """
    job = start(desk, launcher=launcher)
    at = kill_rank(hosts, "vh2", job.run, 1, signal.SIGSTOP)
    job.wait_for("Stalled")
    measured(f"{launcher}: suspected after SIGSTOP", time.time() - at, HANG_S + 2)
    job.wait_for("Inspected", 3)
    measured(f"{launcher}: named after SIGSTOP", time.time() - at, NAMED_S)
    ending = job.end()
    measured(f"{launcher}: run over after SIGSTOP", ending.at - at, NAMED_S + CLEAN_S)
    cause = hang(ending)
    assert (cause["node"], cause["rank"]) == ("vh2", 1)
    assert str(cause["cause"]).startswith("rank 1 on vh2 is stopped (SIGSTOP)")
    assert ending.states == {"vh1": "stopped", "vh2": "failed", "vh3": "stopped"}
    assert "rank 1 on vh2 is stopped" in ending.err
    evidence = desk.folder(job.run) / str(cause["evidence"])
    assert f"{evidence}" in ending.err
    for node in hosts.names:
        assert json.loads((evidence / node / "inspection.json").read_text())["ranks"]
    assert not remains(hosts, job.run)


def test_a_rank_that_does_something_else_is_named(desk: Desk, hosts: VirtualHosts) -> None:
    """It sleeps in Python while the others wait in the all-reduce; nothing is installed to help."""
    job = start(desk, "--sleeper=2")
    ending = job.end(120)
    cause = hang(ending)
    assert (cause["node"], cause["rank"]) == ("vh3", 2), cause
    assert not remains(hosts, job.run)


def test_work_without_a_hang_is_left_alone(desk: Desk, hosts: VirtualHosts) -> None:
    """Ranks that write now and then, with pauses just below the limit."""
    desk.script(
        "slow.py",
        "import time\nfor n in range(4):\n    print('line', n, flush=True)\n    time.sleep(1.5)\n",
    )
    job, ending = desk.run("slow.py", options=budgets(hang=3))
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
    assert not job.events("Stalled")


def test_ranks_that_never_report_are_not_judged_unless_asked(
    desk: Desk, hosts: VirtualHosts
) -> None:
    """A program may be silent for hours; only --budget hang=... says how long is too long."""
    desk.script(
        "mute.py",
        "import sys, time\nprint('begun', flush=True)\ntime.sleep(float(sys.argv[1]))\n",
    )
    _, ending = desk.run("mute.py", "6", options=["--nodes", "vh1"])
    assert ending.code == 0, ending.err
    _, ending = desk.run("mute.py", "600", options=["--nodes", "vh1", *budgets(hang=2)])
    assert hang(ending)["node"] == "vh1"


def test_a_cut_of_ssh_is_no_hang(desk: Desk, hosts: VirtualHosts) -> None:
    """The ranks write on while nobody hears them, for twice the limit."""
    lines = 1200
    options = ["--nodes", "vh2", *budgets(hang=4)]
    job = desk.start("rank.py", "count", str(lines), options=options)
    job.wait_for_line("line 50 of rank 0", 1)
    hosts.cut_ssh("vh2")
    written = hosts.home("vh2") / f".orchestrate/node/runs/{job.run}/vh2/attempt-1/logs/rank-0.out"
    enough = written.read_bytes().count(b"\n") + 800
    wait_until("8 s passed", lambda: written.read_bytes().count(b"\n") > enough, 60)
    hosts.heal("vh2")
    ending = job.end()
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err


def test_a_coordinator_that_was_stopped_itself_suspects_nobody(
    desk: Desk, hosts: VirtualHosts
) -> None:
    """A laptop that slept: what it did not hear meanwhile is no silence."""
    job = desk.start("rank.py", "count", "1200", options=["--nodes", "vh1", *budgets(hang=4)])
    job.wait_for_line("line 50 of rank 0", 1)
    job.process.send_signal(signal.SIGSTOP)
    time.sleep(9)  # the time that passes is what is tested
    job.process.send_signal(signal.SIGCONT)
    ending = job.end()
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
    assert not job.events("Stalled")
