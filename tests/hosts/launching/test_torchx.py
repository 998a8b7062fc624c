"""TorchX's own command line over the inventory of real hosts: run, list, log, status, cancel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.architecture.source import ROOT
from tests.hosts.processes import remains
from tests.hosts.running import Desk, wait_until
from tests.time_limits import scaled

pytest.importorskip("torchx", reason="torchx is not installed")
pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

PAIR = ("vh1", "vh2")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TRAIN = """
import os, sys, time
names = ("RANK", "WORLD_SIZE", "ORCHESTRATE_NODE", "COLOUR", "TORCHX_JOB_ID")
print("I am", *(os.environ[name] for name in names), *sys.argv[1:], flush=True)
time.sleep(600)  # until it is cancelled
"""


@pytest.fixture
def entry_point(tmp_path: Path) -> Path:
    """What an installation tells of the package: the entry points that pyproject.toml declares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = tmp_path / "site" / "orchestrate-0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: orchestrate\nVersion: 0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    return folder.parent


class TorchX:
    """`torchx WORDS` in the project of a desk."""

    def __init__(self, desk: Desk, site: Path) -> None:
        self._desk = desk
        modules = (str(site), str(ROOT), os.environ.get("PYTHONPATH", ""))
        paths = os.pathsep.join(filter(None, modules))
        self._environment = {**desk.environment(), "PYTHONPATH": paths}

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "torchx.cli.main", *words],
            cwd=self._desk.project,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=scaled(90),
            check=False,
        )


def test_an_app_is_launched_listed_logged_and_cancelled(
    desk: Desk, hosts: VirtualHosts, entry_point: Path
) -> None:
    """On the first two of three nodes; nothing is left of the app at its end."""
    torchx = TorchX(desk, entry_point)
    desk.script("train.py", TRAIN)
    scheduler = ("--scheduler", "orchestrate", "--scheduler_args")
    config = f"cluster={desk.cluster},launcher=direct,fabric_probe=False"
    job = ("--env", "COLOUR=red", "--script", "train.py", "--", "--lr", "1e-4")

    refused = torchx("run", *scheduler, config, "dist.ddp", "-j", "2x1", "--max_retries", "3", *job)
    assert refused.returncode == 1
    assert "cannot honour max_retries=3" in refused.stderr
    assert "Traceback" not in refused.stderr

    begun = torchx("run", *scheduler, config, "dist.ddp", "-j", "2x1", *job)
    handle = begun.stdout.strip().rpartition("\n")[2]
    run = handle.rpartition("/")[2]
    try:
        assert begun.returncode == 0, begun.stderr
        assert handle.startswith("orchestrate://torchx/train-")
        for rank, node in enumerate(PAIR):
            wait_until(f"rank {rank}", lambda n=node, r=rank: _wrote(desk, run, n, r), 60)
        logged = torchx("log", handle)
        for rank, node in enumerate(PAIR):
            told = f"train/{rank} I am {rank} 2 {node} red {handle} --lr 1e-4"
            assert told in COLOUR.sub("", logged.stdout), logged.stderr
        listed = torchx("list", "-s", "orchestrate")
        assert _state(listed.stdout, handle) == "RUNNING", listed.stderr
    finally:
        cancelled = torchx("cancel", handle)
    assert cancelled.returncode == 0, cancelled.stderr
    status = torchx("status", handle)
    assert re.search(r"State: +CANCELLED", COLOUR.sub("", status.stdout)), status
    assert not remains(hosts, run, PAIR)


def _wrote(desk: Desk, run: str, node: str, rank: int) -> bool:
    path = desk.folder(run) / "logs" / node / f"rank-{rank}.out"
    return path.exists() and path.read_bytes().endswith(b"\n")


def _state(table: str, handle: str) -> str:
    """The last column of the app's row."""
    rows = [line.split() for line in table.splitlines() if handle in line]
    return rows[0][-1] if len(rows) == 1 else f"{len(rows)} rows: {table}"
