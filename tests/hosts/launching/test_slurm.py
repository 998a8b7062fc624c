"""Runs under a real Slurm, on hosts that share nothing but the network."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts
from virtual_hosts_lib.state import Options

from tests.hosts.alone import train_alone
from tests.hosts.conftest import RaiseHosts
from tests.hosts.processes import kill_rank, look, remains
from tests.hosts.running import RANK, Desk, Ending, Job, open_desk, wait_until
from tests.hosts.saving import saving

pytestmark = pytest.mark.hosts

REDUCE = """
import os
import socket

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
slurm = os.environ["SLURMD_NODENAME"], os.environ["SLURM_NNODES"]
print(socket.gethostname(), f"rank {os.environ['RANK']}", f"sum {total.item():g}", *slurm)
print(os.environ["TOKEN"], os.getcwd(), flush=True)
dist.destroy_process_group()
"""
SAVE = saving("OUTPUT")
# As little as shows whether two trainings are the same.
FINETUNE = (
    "steps=3",
    "global_batch=4",
    "micro_batch=2",
    "sequence_length=128",
    "train_conversations=60",
    "eval_conversations=2",
    "max_new_tokens=2",
)


@pytest.fixture(scope="module")
def cluster(
    raise_hosts: RaiseHosts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VirtualHosts]:
    """Two hosts with a Slurm of their own."""
    options = Options(count=2, python=sys.executable, slurm=True)
    with raise_hosts(tmp_path_factory.mktemp("slurm-hosts"), options) as hosts:
        yield hosts


@pytest.fixture
def desk(cluster: VirtualHosts, tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path, cluster.inventory) as desk:
        desk.script("rank.py", RANK)
        desk.script("reduce.py", REDUCE)
        yield desk


def queue(hosts: VirtualHosts) -> list[str]:
    """``NAME STATE`` of every job that Slurm has; what only awaits its epilogue is over."""
    done = hosts.exec("vh1", ["squeue", "--noheader", "--format=%j %t"])
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if not line.endswith(" CG")]


def assert_nothing_left(hosts: VirtualHosts, run: str) -> None:
    assert queue(hosts) == []
    assert not remains(hosts, run)


def start_staying(desk: Desk, *options: str) -> Job:
    """A run of two ranks that stay, once both do."""
    job = desk.start("rank.py", "stay", launcher="slurm", options=options)
    job.wait_for_line("ready", 2)
    return job


def failure(ending: Ending) -> tuple[str, str]:
    told = ending.result["failure"]
    return told["id"], told["cause"]


def test_ranks_meet_under_slurm(desk: Desk, cluster: VirtualHosts) -> None:
    """A real collective; each node's own paths, plan and secrets, and Slurm's variables."""
    options = ["--env", "TOKEN", "--slurm-option=--partition=main", "--timeout", "300"]
    job, ending = desk.run(
        "reduce.py", launcher="slurm", options=options, env={"TOKEN": "a-secret-of-mine"}
    )
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
    assert ending.result["launcher"] == "slurm"
    for rank, node in enumerate(cluster.names):
        first, second = desk.log(job.run, node, f"rank-{rank}.out").decode().splitlines()
        assert first == f"{node} rank {rank} sum 3 {node} 2"
        assert second.startswith("a-secret-of-mine /")
        assert f"/{job.run}/{node}/" in second
    assert "runs on vh1, vh2" in ending.err + str(job.records)
    assert_nothing_left(cluster, job.run)


@pytest.mark.timeout(280)  # two trainings, and the machine may have more to do
def test_the_same_loss_as_of_one_rank_alone(
    desk: Desk, cluster: VirtualHosts, tmp_path: Path
) -> None:
    """Who starts the ranks changes nothing of what they compute."""
    alone = train_alone(tmp_path / "alone", FINETUNE)
    settings = [word for setting in FINETUNE for word in ("--set", setting)]
    options = ["--workload", "finetune", "--env", "OMP_NUM_THREADS=1", *settings]
    job, ending = desk.run(launcher="slurm", options=options, within_s=130)
    assert failure(ending)[0] == "OR-GATE-001", ending.err  # three steps teach nothing
    lines = (desk.folder(job.run) / "artifacts" / "vh1" / "loss.jsonl").read_text()
    losses = [json.loads(line)["loss"] for line in lines.splitlines()]
    assert len(losses) == 3
    assert losses == pytest.approx(alone.losses(), rel=2e-5)
    assert_nothing_left(cluster, job.run)


def test_a_killed_rank_is_named(desk: Desk, cluster: VirtualHosts) -> None:
    job = start_staying(desk)
    at = kill_rank(cluster, "vh2", job.run, 1, signal.SIGKILL)
    ending = job.end()
    told = ending.result["failure"]
    assert (ending.code, told["node"], told["rank"]) == (1, "vh2", 1), ending.err
    assert "SIGKILL" in told["cause"]
    named = job.events("RankExited", node="vh2", rank=1)
    assert named[0]["at"] - at < 5
    assert_nothing_left(cluster, job.run)


def test_an_interrupt_ends_job_and_ranks(desk: Desk, cluster: VirtualHosts) -> None:
    job = start_staying(desk)
    assert [line.split(".")[0] for line in queue(cluster)] == [job.run]
    job.interrupt()
    ending = job.end()
    assert (ending.code, ending.result["status"]) == (130, "stopped"), ending.err
    assert set(ending.states.values()) == {"stopped"}
    assert_nothing_left(cluster, job.run)


def test_what_slurm_ends_is_no_failure_of_a_rank(desk: Desk, cluster: VirtualHosts) -> None:
    job = start_staying(desk)
    name = queue(cluster)[0].split()[0]
    cluster.exec("vh1", ["scancel", f"--name={name}"])
    ending = job.end()
    id, cause = failure(ending)
    assert (ending.code, id) == (1, "OR-SLURM-005"), ending.err
    assert cause.startswith("Slurm ended ")
    assert_nothing_left(cluster, job.run)


def assert_all_saved(desk: Desk, job: Job) -> None:
    """Each rank was asked once, and what it saved came home."""
    said = {f: lines[1:] for f, lines in job.lines().items() if "/rank-" in f}
    ranks = {"vh1": (0, 1), "vh2": (2, 3)}
    assert said == {f"{n}/rank-{r}.out": ["asked 1"] for n, found in ranks.items() for r in found}
    artifacts = desk.folder(job.run) / "artifacts"
    saved = {name: sorted(p.name for p in (artifacts / name).glob("saved-*")) for name in ranks}
    assert saved == {n: [f"saved-{r}" for r in found] for n, found in ranks.items()}


@pytest.mark.parametrize("how", ["scancel", "time limit"])
@pytest.mark.timeout(280)  # Slurm's shortest limit is a minute, and it looks twice a minute
def test_ranks_save_when_slurm_ends_the_job(desk: Desk, cluster: VirtualHosts, how: str) -> None:
    """Whichever processes Slurm signals, a rank gets one request to end."""
    desk.script("save.py", SAVE)
    limit = ["--slurm-option=--time=1"] if how == "time limit" else []
    options = ["--ranks-per-node", "2", *limit]
    job = desk.start("save.py", launcher="slurm", options=options)
    job.wait_for_line("ready", 4, within_s=100)
    if how == "scancel":
        cluster.exec("vh1", ["scancel", f"--name={queue(cluster)[0].split()[0]}"])
    ending = job.end(150)
    assert failure(ending)[0] == "OR-SLURM-005", ending.err
    assert_all_saved(desk, job)
    assert_nothing_left(cluster, job.run)


def test_ranks_save_when_the_user_ends_the_run(desk: Desk, cluster: VirtualHosts) -> None:
    desk.script("save.py", SAVE)
    job = desk.start("save.py", launcher="slurm", options=["--ranks-per-node", "2"])
    job.wait_for_line("ready", 4, within_s=100)
    job.interrupt()
    ending = job.end()
    assert (ending.code, ending.result["status"]) == (130, "stopped"), ending.err
    assert_all_saved(desk, job)
    assert_nothing_left(cluster, job.run)


def test_a_job_outlives_nobody(desk: Desk, cluster: VirtualHosts) -> None:
    """A submission that is killed cannot take its job back: the sweep does."""
    job = start_staying(desk)
    killed = look(cluster, "vh1", text="slurm_submit.py", signal=signal.SIGKILL)
    assert killed
    ending = job.end()
    assert ending.code == 1, ending.err
    # Slurm ends the tasks of an srun that is gone at the same moment.
    assert failure(ending)[0] in ("OR-RUN-001", "OR-SLURM-005")
    assert_nothing_left(cluster, job.run)


def test_a_refused_job_says_what_slurm_says(desk: Desk, cluster: VirtualHosts) -> None:
    options = ["--slurm-option", "--partition=nope"]
    job, ending = desk.run("rank.py", "stay", launcher="slurm", options=options)
    id, cause = failure(ending)
    assert (ending.code, id) == (1, "OR-SLURM-002"), ending.err
    assert "invalid partition specified: nope" in cause
    assert "--slurm-option" in ending.result["failure"]["remedy"]
    assert_nothing_left(cluster, job.run)


def test_a_job_that_waits_says_for_what(desk: Desk, cluster: VirtualHosts) -> None:
    """In time it gives up, and can be tried again; it is taken back."""
    options = ["--slurm-option=--begin=now+1hour", "--wait", "2"]
    job, ending = desk.run("rank.py", "stay", launcher="slurm", options=options)
    id, cause = failure(ending)
    assert (ending.code, id) == (75, "OR-SLURM-003"), ending.err
    assert "waits: BeginTime" in cause
    assert "--wait" in ending.result["failure"]["remedy"]
    assert "waits: BeginTime" in ending.err + str(job.records)
    assert_nothing_left(cluster, job.run)


def test_an_interrupt_takes_back_a_job_that_waits(desk: Desk, cluster: VirtualHosts) -> None:
    options = ["--slurm-option=--begin=now+1hour"]
    job = desk.start("rank.py", "stay", launcher="slurm", options=options)
    wait_until("a job in the queue", lambda: queue(cluster))
    job.interrupt()
    ending = job.end()
    assert (ending.code, ending.result["status"]) == (130, "stopped"), ending.err
    assert_nothing_left(cluster, job.run)


def test_ranks_within_a_job_that_the_user_holds(desk: Desk, cluster: VirtualHosts) -> None:
    """It is used as it is, and kept."""
    held = ["salloc", "--no-shell", "--nodes=2", "--cpus-per-task=2", "--job-name=mine"]
    granted = cluster.exec("vh1", held).stderr.split("job allocation ")[1].split()[0]
    try:
        job = desk.start("rank.py", "stay", "1", launcher="slurm", env={"SLURM_JOB_ID": granted})
        ending = job.end()
        assert ending.code == 0, ending.err
        assert queue(cluster) == ["mine R"]
        assert not remains(cluster, job.run)
    finally:
        cluster.exec("vh1", ["scancel", granted])
    wait_until("the job is over", lambda: not queue(cluster))


def test_a_node_that_slurm_keeps_back_is_left_out(desk: Desk, cluster: VirtualHosts) -> None:
    """Before anything is launched, with Slurm's reason."""
    change = ["scontrol", "update", "nodename=vh2"]
    cluster.exec("vh1", [*change, "state=drain", "reason=a bad fan"])
    try:
        _, ending = desk.run("rank.py", "stay", launcher="slurm")
    finally:
        cluster.exec("vh1", [*change, "state=resume"])
    assert ending.code == 4
    assert ending.result["failure"]["id"] == "OR-AGENT-SLURM"
    assert "a bad fan" in ending.result["failure"]["cause"]
