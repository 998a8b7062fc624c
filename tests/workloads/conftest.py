"""The workloads as scripts: a cache for small models, and ways to run them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.model.workload import Workload
from orchestrator.parsing.inputs.workloads.workload_file import load_workload
from tests.forks import Fork, ForkServer
from tests.time_limits import communicate

WORKLOADS = Path(__file__).parents[2] / "workloads"
FINETUNE = WORKLOADS / "finetune"
MLPERF = WORKLOADS / "mlperf"
ACCEPTANCE = WORKLOADS / "acceptance"
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))  # how the small base is made

TRAINING = ForkServer("torch", "transformers", "peft")
DEADLINE_S = 240
# Enough wherever the subject is not what the model learns.
QUICK = (
    "--train-conversations=150",
    "--eval-conversations=6",
    "--max-new-tokens=4",
    "--learning-rate=1e-3",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFolder:
    """What one node has to itself: output, checkpoints, reports, cache."""

    path: Path

    def environment(self) -> dict[str, str]:
        """What orchestrate sets for a rank, with folders of this node."""
        (self.path / "reports").mkdir(parents=True, exist_ok=True)
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return kept | {
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "ORCHESTRATE_OUTPUT_DIR": str(self.path / "output"),
            "ORCHESTRATE_CHECKPOINT_DIR": str(self.path / "checkpoints"),
            "ORCHESTRATE_REPORT_DIR": str(self.path / "reports"),
        }

    def start(self, *argv: str, **environment: str) -> subprocess.Popen[str]:
        """Start Python with these arguments as a process of this node."""
        return subprocess.Popen(
            [sys.executable, *argv],
            cwd=self.path,
            env=self.environment() | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def fork(self, *argv: str, **environment: str) -> Fork:
        """The same for programs that need torch, transformers and peft, which have been imported:
        variables that these read at their import change nothing.
        """
        return TRAINING.start(argv, self.path, self.environment() | environment)

    def records(self, rank: int = 0) -> list[dict[str, Any]]:
        """What a rank has reported."""
        path = self.path / "reports" / f"rank-{rank}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def metrics(self, rank: int = 0) -> dict[str, float]:
        """The final figures that a rank reported."""
        return {
            record["name"]: record["value"]
            for record in self.records(rank)
            if record["type"] == "metric" and record["step"] is None
        }

    def steps_done(self) -> list[int]:
        """Of all attempts, as they told of their progress."""
        return [record["done"] for record in self.records() if record["type"] == "progress"]

    def steps_saved(self) -> list[int]:
        """The steps after which a checkpoint was written."""
        return [record["step"] for record in self.records() if record["type"] == "checkpoint"]

    def losses(self) -> list[float]:
        """The loss of each step, from the curve that the run left."""
        lines = (self.path / "output" / "loss.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]


def finetune_workload() -> Workload:
    """The workload as the coordinator reads it."""
    return _workload(FINETUNE)


def mlperf_workload() -> Workload:
    """The workload as the coordinator reads it."""
    return _workload(MLPERF)


def acceptance_workload() -> Workload:
    """The workload as the coordinator reads it."""
    return _workload(ACCEPTANCE)


def bundled_workload(name: str) -> Workload:
    """The workload as the coordinator reads it."""
    return _workload(WORKLOADS / name)


def _workload(folder: Path) -> Workload:
    path = folder / "workload.yaml"
    return load_workload(path.read_bytes(), path.name, str(folder))


def node_folder(path: Path) -> NodeFolder:
    """A new, empty node."""
    path.mkdir(parents=True)
    return NodeFolder(path=path)


class Ranks:
    """The ranks of one node, as far as tests use one process's interface."""

    def __init__(self, forks: Sequence[Fork]) -> None:
        self._forks = forks

    @property
    def returncode(self) -> int | None:
        """The first that is not 0, once all have ended."""
        codes = [fork.poll() for fork in self._forks]
        return None if None in codes else next(filter(None, codes), 0)

    def poll(self) -> int | None:
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What each wrote, one after the other."""
        with ThreadPoolExecutor(len(self._forks)) as pool:
            said = list(pool.map(lambda fork: fork.communicate(timeout), self._forks))
        out, err = map("".join, zip(*said, strict=True))
        return out, err

    def send_signal(self, number: int) -> None:
        for fork in self._forks:
            fork.send_signal(number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Process = Fork | Ranks | subprocess.Popen[str]


def finish(process: Process) -> tuple[str, str]:
    """Wait for a process to end; return (stdout, stderr). It is killed after a deadline."""
    try:
        return communicate(process, DEADLINE_S)
    finally:
        process.kill()


def succeed(process: Process) -> str:
    """Wait for a process to succeed; return its stdout."""
    out, err = finish(process)
    assert process.returncode == 0, err[-4000:]
    return out


def free_port() -> int:
    """A TCP port on the loopback that nobody uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_ranks(
    nodes: Sequence[NodeFolder], per_node: int, script: Path, *arguments: str
) -> list[Ranks]:
    """For each node its ranks, with the variables that torchrun sets for them."""
    world = {
        "WORLD_SIZE": len(nodes) * per_node,
        "LOCAL_WORLD_SIZE": per_node,
        "GROUP_WORLD_SIZE": len(nodes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }

    def start(group: int, local: int) -> Fork:
        place = {"RANK": group * per_node + local, "LOCAL_RANK": local, "GROUP_RANK": group}
        variables = {name: str(value) for name, value in (world | place).items()}
        return nodes[group].fork(str(script), *arguments, **variables)

    return [
        Ranks([start(group, local) for local in range(per_node)]) for group in range(len(nodes))
    ]


def start_torchrun(
    nodes: Sequence[NodeFolder], per_node: int, script: Path, *arguments: str
) -> list[subprocess.Popen[str]]:
    """One torchrun for each node, that find each other by a fixed address."""
    port = free_port()
    return [
        node.start(
            "-m",
            "torch.distributed.run",
            f"--nnodes={len(nodes)}",
            f"--node-rank={index}",
            f"--nproc-per-node={per_node}",
            "--master-addr=127.0.0.1",
            f"--master-port={port}",
            str(script),
            *arguments,
        )
        for index, node in enumerate(nodes)
    ]


@pytest.fixture(scope="session")
def beginner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that has learnt next to nothing, so that few steps change little of it: for numbers
    that are compared after a training.
    """
    from tiny_base_lib.recipe import Recipe, make

    folder = tmp_path_factory.mktemp("beginner")
    make(folder, Recipe(steps=3))
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs of this session keep generated models, so that they are made once."""
    return tmp_path_factory.mktemp("base-cache")
