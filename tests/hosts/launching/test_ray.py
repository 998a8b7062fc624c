"""``--launcher ray`` on real hosts: as torchrun, beside a Ray cluster that was there, or in it."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.contracts.launchers.foreign_ray import HEAD, part, wait_for
from tests.contracts.launchers.foreign_ray import look as look_at_ray
from tests.hosts.processes import kill_rank, look, remains
from tests.hosts.running import Desk
from tests.time_limits import scaled

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

PAIR = ("vh1", "vh2")
ON_PAIR = ("--nodes", ",".join(PAIR))
PORT = 16379
REDUCE = """
import os, sys, time
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
print("sum", total.item(), os.environ["ORCHESTRATE_NODE"], flush=True)
time.sleep(300)
"""
# Small enough that starting takes longer than training.
TINY = (
    *("steps=4", "global_batch=4", "micro_batch=2", "sequence_length=192"),
    *("train_conversations=60", "eval_conversations=4", "max_new_tokens=4", "learning_rate=1e-3"),
)

OWN_PROGRAM = """
import json, os, socket
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
ray.init(log_to_driver=False, configure_logging=False)

@ray.remote(num_cpus=1)
def where():
    return socket.gethostname(), os.environ["COLOUR"], os.environ.get("RANK", "no rank")

pins = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes()]
places = ray.get([where.options(scheduling_strategy=pin).remote() for pin in pins], timeout=60)
print(json.dumps(sorted(places)))
"""


@pytest.fixture(scope="module")
def foreign(virtual_hosts: VirtualHosts) -> Iterator[str]:
    """A Ray cluster that somebody else runs on both hosts, where everybody would look for one."""
    first, second = (virtual_hosts.address(name) for name in PAIR)
    address = f"{first}:{PORT}"
    head = (*HEAD, f"--port={PORT}")
    with ExitStack() as stack:
        for name, own, where in zip(
            PAIR, (first, second), (head, (f"--address={address}",)), strict=True
        ):
            prefix = partial(virtual_hosts.exec_argv, name)
            stack.enter_context(part(prefix, "/tmp/ray", f"--node-ip-address={own}", *where))
            wait_for(partial(_exists, virtual_hosts, name, "/tmp/ray/ray_current_cluster"))
        yield address


def _exists(hosts: VirtualHosts, name: str, path: str) -> bool:
    return bool(_names(hosts, name, path))


def _names(hosts: VirtualHosts, name: str, pattern: str) -> list[str]:
    """Files on a host."""
    words = [sys.executable, "-c", "import glob,sys;print(*glob.glob(sys.argv[1]),sep='\\n')"]
    return hosts.exec(name, [*words, pattern]).stdout.split()


def _of_ray(hosts: VirtualHosts) -> dict[str, list[int]]:
    """Every long-lived process of Ray's on the pair."""
    return {name: sorted(p for p, _ in look(hosts, name, text="/tmp/ray/")) for name in PAIR}


def _finetune(desk: Desk, launcher: str) -> tuple[dict[str, Any], list[float]]:
    """The result, and the loss of every step."""
    run = f"{desk.project.parent.name}-{launcher}"
    settings = [word for setting in TINY for word in ("--set", setting)]
    fixed = ["run", "--cluster", str(desk.cluster), "--run-id", run, "--json", *ON_PAIR]
    fixed += ["--no-fabric-probe", "--env", "OMP_NUM_THREADS=1"]  # two hosts share two cores
    done = desk.command(
        *fixed, "--workload", "finetune", "--launcher", launcher, *settings, within_s=150
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    # So short a training misses the workload's gate, which is judged when all else went well.
    assert result["failure"]["id"] == "OR-GATE-001", done.stderr
    curve = desk.folder(run) / "artifacts" / PAIR[0] / "loss.jsonl"
    return result, [json.loads(line)["loss"] for line in curve.read_text().splitlines()]


def test_finetune_learns_as_under_torchrun(desk: Desk, hosts: VirtualHosts, foreign: str) -> None:
    """The same losses by a Ray cluster of the run's own; the one that was there goes on."""
    before = _of_ray(hosts)
    _, expected = _finetune(desk, "torchrun")
    result, losses = _finetune(desk, "ray")

    assert (result["launcher"], result["world_size"]) == ("ray", 2)
    assert len(losses) == 4
    assert losses == pytest.approx(expected, rel=1e-5)
    assert not remains(hosts, result["run_id"], PAIR)
    assert {name: _names(hosts, name, "/tmp/or-*") for name in PAIR} == {n: [] for n in PAIR}
    assert _of_ray(hosts) == before


def test_a_cluster_is_joined_and_left_as_it_was(
    desk: Desk, hosts: VirtualHosts, foreign: str
) -> None:
    """Ranks meet in actors of somebody else's cluster; a killed one is named, and nothing stays."""
    prefix = partial(hosts.exec_argv, PAIR[0])
    before = look_at_ray(prefix, foreign), _of_ray(hosts)
    desk.script("reduce.py", REDUCE)
    nowhere = foreign.rpartition(":")[0] + ":9"
    _, ending = desk.run("reduce.py", launcher="auto", options=("--ray-address", nowhere, *ON_PAIR))
    assert ending.code == 1, ending.err
    assert f"no Ray cluster answers at {nowhere}" in str(ending.result["failure"]["last_line"])

    job = desk.start("reduce.py", launcher="auto", options=("--ray-address", foreign, *ON_PAIR))
    for node in PAIR:
        job.wait_for_line(f"sum 3.0 {node}", 1, within_s=90)
    kill_rank(hosts, PAIR[1], job.run, 1, signal.SIGKILL)
    ending = job.end()

    assert (ending.code, ending.result["launcher"]) == (1, "ray"), ending.err
    failure = ending.result["failure"]
    assert (failure["node"], failure["rank"]) == (PAIR[1], 1)
    assert "SIGKILL" in failure["cause"]
    assert not remains(hosts, job.run, PAIR)
    assert (look_at_ray(prefix, foreign), _of_ray(hosts)) == before


def test_a_cluster_for_programs_of_ones_own_comes_and_goes(
    desk: Desk, hosts: VirtualHosts, foreign: str
) -> None:
    """Beside somebody else's on the same nodes, which goes on; nobody enters without the token."""
    prefix = partial(hosts.exec_argv, PAIR[0])
    before = look_at_ray(prefix, foreign), _of_ray(hosts), _shared_memory(hosts)
    own = ("--cluster", str(desk.cluster), *ON_PAIR)
    small = ("--set", "object_store=80", "--set", "cpus=1", "--env", "COLOUR=red")
    up = desk.command("ray", "up", *own, *small, "--json", within_s=150)
    try:
        assert up.returncode == 0, up.stderr
        told = json.loads(up.stdout)
        assert [(n["name"], n["joined"], n["cpus"]) for n in told["nodes"]] == [
            (name, True, 1) for name in PAIR
        ]
        program = shlex.join(["python", "-c", OWN_PROGRAM])
        line = f". {told['nodes'][0]['environment']} && {program}"
        words = ("exec", "--cluster", str(desk.cluster), "--nodes", PAIR[0], "--")
        done = desk.command(*words, "sh", "-c", line, within_s=90)
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout.splitlines()[-1])
        assert seen == [[name, "red", "no rank"] for name in PAIR]

        stranger = f"import ray; ray.init({told['address']!r}, log_to_driver=False)"
        wrong = ("env", "RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN=wrong", sys.executable, "-c")
        refused = hosts.exec(PAIR[0], [*wrong, stranger], timeout=scaled(60))
        assert (refused.returncode, "InvalidAuthToken" in refused.stderr) == (1, True), refused

        again = desk.command("ray", "up", *own)
        assert (again.returncode, told["run_id"] in again.stderr) == (75, True), again.stderr
        shown = desk.command("ray", "status")
        assert shown.returncode == 0
        assert told["address"] in shown.stdout
    finally:
        down = desk.command("ray", "down", *own, within_s=120)

    assert down.returncode == 0, down.stderr
    assert "nothing of it is left on any node" in down.stderr
    assert not remains(hosts, told["run_id"], PAIR)
    assert {name: _names(hosts, name, "/tmp/or-*") for name in PAIR} == {n: [] for n in PAIR}
    assert (look_at_ray(prefix, foreign), _of_ray(hosts), _shared_memory(hosts)) == before
    logs = desk.folder(told["run_id"]) / "artifacts" / PAIR[0]
    assert list(logs.rglob("gcs_server*"))
    assert desk.command("ray", "status").returncode == 1


def _shared_memory(hosts: VirtualHosts) -> dict[str, list[str]]:
    """The objects in it that have names."""
    return {name: _names(hosts, name, "/dev/shm/*") for name in PAIR}
