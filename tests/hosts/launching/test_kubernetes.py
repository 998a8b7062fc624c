"""Runs in pods: the real kubectl, an API server of the tests, containers on virtual hosts."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts
from virtual_hosts_lib.state import Options

from tests.hosts.conftest import RaiseHosts
from tests.hosts.running import RANK, Desk, Job, open_desk, wait_until
from tests.kubernetes.cluster.cluster import Cluster, raise_cluster

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(280)]  # kubectl is started often

INVENTORY = "name: lab\ndefaults: {gpus: 0}\nnodes: ['n[1-2]']\n"
# Every rank meets rank 0, and leaves a file.
MEET = """
import os, socket, time

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if rank == 0:
    with socket.create_server(("", place[1])) as server:
        for _ in range(size - 1):
            server.accept()[0].close()
else:
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(place, timeout=30).close()
            break
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
print("met on", socket.gethostname(), os.environ["TOKEN"], os.getppid() > 0, flush=True)
with open(os.environ["ORCHESTRATE_OUTPUT_DIR"] + f"/of-{rank}", "wb") as file:
    file.write(os.urandom(500_000))
"""
# Stays the first time, and is done when there is a checkpoint.
SAVE = """
import os, time

path = os.environ["ORCHESTRATE_CHECKPOINT_DIR"] + "/step-" + os.environ["RANK"]
before = os.path.exists(path)
open(path, "w").close()
print("saved", 2 if before else 1, flush=True)
time.sleep(0 if before else 600)
"""


@pytest.fixture(scope="module")
def machines(
    raise_hosts: RaiseHosts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VirtualHosts]:
    options = Options(count=2, python=sys.executable)
    with raise_hosts(tmp_path_factory.mktemp("pod-hosts"), options) as hosts:
        yield hosts


@pytest.fixture
def cluster(
    machines: VirtualHosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """A cluster of two machines, which kubectl finds by its kubeconfig."""
    with raise_cluster({name: machines.exec_argv(name, []) for name in machines.names}) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
        monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "kube-cache"))
        yield cluster
        assert cluster.processes() == []


@pytest.fixture
def desk(cluster: Cluster, tmp_path: Path) -> Iterator[Desk]:
    inventory = tmp_path / "lab.yaml"
    inventory.write_text(INVENTORY)
    with open_desk(tmp_path, inventory) as desk:
        desk.script("rank.py", RANK)
        yield desk


def start(desk: Desk, *script: str, options: tuple[str, ...] = ()) -> Job:
    pods = ("--pod-image", "registry/image:1", "--pod-python", sys.executable)
    return desk.start(*script, launcher="kubernetes", options=(*pods, *options))


def noted(job: Job, text: str) -> bool:
    return any(text in event["text"] for event in job.events("Note"))


def assert_removed(cluster: Cluster) -> None:
    """Nothing of the run is left in the cluster, and no process of it on a machine."""
    assert (cluster.names("jobsets"), cluster.names("pods")) == ([], [])
    assert cluster.processes() == []


def test_pods_are_nodes(desk: Desk, cluster: Cluster) -> None:
    """Ranks meet, logs and outputs come home, variables are kept secret, and nothing is left."""
    desk.script("meet.py", MEET)

    job = start(desk, "meet.py", options=("--env", "TOKEN=a b$c"))
    ended = job.end(120)

    assert ended.code == 0, ended.err
    assert job.lines() == {
        "n1/rank-0.out": ["met on vh1 a b$c True"],
        "n2/rank-1.out": ["met on vh2 a b$c True"],
    }
    outputs = desk.folder(job.run) / "artifacts"
    assert [path.stat().st_size for path in sorted(outputs.glob("n*/of-*"))] == [500_000] * 2
    assert noted(job, "nothing of it is left")
    assert_removed(cluster)


def test_a_rank_that_fails_is_named_as_over_ssh(desk: Desk, cluster: Cluster) -> None:
    ended = start(desk, "rank.py", "exit").end(120)

    assert (ended.code, ended.result["failure"]["id"]) == (1, "OR-RUN-001")
    assert "rank 1 on n2 exited with code 3" in ended.result["failure"]["cause"]
    assert_removed(cluster)


def test_interrupted_runs_leave_nothing(desk: Desk, cluster: Cluster) -> None:
    job = start(desk, "rank.py", "stay")
    job.wait_for_line("ready", 2)

    job.interrupt()
    ended = job.end(120)

    assert (ended.code, ended.result["status"]) == (130, "stopped")
    assert_removed(cluster)


def test_a_killed_coordinator_is_followed_by_another_one(
    desk: Desk, cluster: Cluster, machines: VirtualHosts
) -> None:
    """Pods and ranks live on; every line comes home once, and the pods are removed in the end."""
    job = start(desk, "rank.py", "talk")
    job.wait_for_line("line 20 of rank 1", 1)
    job.interrupt(signal.SIGKILL)
    job.abandon()
    pods = cluster.names("pods")
    assert len(pods) == 2

    again = desk.resume(job.run)
    again.wait_for("Resumed")
    assert cluster.names("pods") == pods
    for name in machines.names:
        (machines.home(name) / f"go-{job.run}").touch()
    ended = again.end(120)

    assert ended.code == 0, ended.err
    for node, rank in (("n1", 0), ("n2", 1)):
        lines = desk.log(job.run, node, f"rank-{rank}.out").decode().splitlines()
        assert lines == [f"line {number} of rank {rank}" for number in range(len(lines))]
    assert_removed(cluster)


@pytest.mark.parametrize("command", [("stop",), ("clean", "--discard")])
def test_what_a_killed_coordinator_left_is_removed(
    command: tuple[str, ...], desk: Desk, cluster: Cluster
) -> None:
    job = start(desk, "rank.py", "stay")
    job.wait_for_line("ready", 2)
    job.interrupt(signal.SIGKILL)
    job.abandon()

    done = desk.command(*command, job.run, within_s=120)

    assert done.returncode == 0, done.stderr
    assert_removed(cluster)


def test_a_pod_that_is_evicted_is_named_with_the_reason(desk: Desk, cluster: Cluster) -> None:
    job = start(desk, "rank.py", "stay")
    job.wait_for_line("ready", 2)
    (second,) = [name for name in cluster.names("pods") if "-0-1-" in name]

    cluster.end_pod(second, "Evicted", "The node was low on resource: memory.")
    ended = job.end(120)

    assert (ended.code, ended.states["n2"]) == (1, "lost")
    failure = ended.result["failure"]
    assert "Evicted: The node was low on resource: memory." in failure["cause"]
    assert "kubectl describe pod" in failure["remedy"]
    assert_removed(cluster)


def test_a_machine_that_is_lost_ends_the_run(desk: Desk, cluster: Cluster) -> None:
    """No connection ends; its pod cannot be removed either, which the result says, and ``stop``
    removes it when the machine is back.
    """
    job = start(desk, "rank.py", "stay", options=("--budget", "clean=1", "--budget", "grace=1"))
    job.wait_for_line("ready", 2)
    (second,) = [name for name in cluster.names("pods") if "-0-1-" in name]

    cluster.freeze(second)
    ended = job.end(200)

    assert (ended.code, cluster.names("pods")) == (1, [second])
    assert any(f"not removed: pod {second}" in text for text in ended.result["warnings"])
    assert set(ended.states.values()) == {"dirty"}
    assert desk.command("stop", job.run, within_s=120).returncode == 4
    cluster.thaw(second)
    assert desk.command("stop", job.run, within_s=120).returncode == 0
    assert_removed(cluster)


def test_streams_that_break_are_opened_again(
    desk: Desk, cluster: Cluster, machines: VirtualHosts
) -> None:
    """As when the API server is restarted: the ranks notice nothing, and no line is lost."""
    job = start(desk, "rank.py", "talk")
    job.wait_for_line("line 20 of rank 1", 1)

    for name in cluster.names("pods"):
        cluster.cut_streams(name)
    seen = len(job.lines()["n2/rank-1.out"])
    wait_until("more lines", lambda: len(job.lines()["n2/rank-1.out"]) > seen + 50)
    for name in machines.names:
        (machines.home(name) / f"go-{job.run}").touch()
    ended = job.end(120)

    assert ended.code == 0, ended.err
    lines = desk.log(job.run, "n2", "rank-1.out").decode().splitlines()
    assert lines == [f"line {number} of rank 1" for number in range(len(lines))]
    assert_removed(cluster)


def test_a_job_waits_in_its_queue(desk: Desk, cluster: Cluster) -> None:
    """It says for what, and begins when Kueue admits it."""
    cluster.quota = False
    desk.script("hello.py", "print('hello')\n")
    job = start(desk, "hello.py", options=("--pod-queue", "gpus", "--wait", "100"))
    said = "the job waits in the queue gpus: couldn't assign flavors to pod set nodes"
    wait_until("the reason", lambda: noted(job, said), within_s=60)

    cluster.admit()
    ended = job.end(120)

    assert ended.code == 0, ended.err
    assert_removed(cluster)


def test_a_job_that_waits_in_its_queue_can_be_interrupted(desk: Desk, cluster: Cluster) -> None:
    cluster.quota = False
    job = start(desk, "rank.py", "stay", options=("--pod-queue", "gpus", "--wait", "100"))
    wait_until("the queue", lambda: noted(job, "the job waits in the queue"), within_s=60)

    job.interrupt()
    ended = job.end(60)

    assert (ended.code, ended.result["status"]) == (130, "stopped")
    assert_removed(cluster)


def test_a_claim_keeps_the_checkpoints_of_a_run_that_was_stopped(
    desk: Desk, cluster: Cluster
) -> None:
    """Its pods are gone; another attempt has new ones, and goes on from there."""
    desk.script("save.py", SAVE)
    job = start(desk, "save.py", options=("--pod-claim", "kept"))
    job.wait_for_line("saved 1", 2)
    job.interrupt()
    assert job.end(120).code == 130
    assert_removed(cluster)

    again = desk.resume(job.run)
    ended = again.end(120)

    assert ended.code == 0, ended.err
    assert list(again.lines().values()) == [["saved 2"], ["saved 2"]]
    assert_removed(cluster)
