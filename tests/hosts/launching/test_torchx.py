"""TorchX's own command line over the inventory of real hosts: run, list, log, status, cancel."""

from __future__ import annotations

import os
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

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

PAIR = ("vh1", "vh2")
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
    """Three nodes are there and one lacks what is asked; nothing is left of the app at its end."""
    torchx = TorchX(desk, entry_point)
    desk.script("train.py", TRAIN)
    scheduler = ("--scheduler", "orchestrate", "--scheduler_args")
    config = f"cluster={desk.cluster},launcher=direct,fabric_probe=False"
    job = ("--env", "COLOUR=red", "--script", "train.py", "--", "--lr", "1e-4")

    refused = torchx("run", *scheduler, config, "dist.ddp", "-j", "2x1", "--max_retries", "3", *job)
    assert refused.returncode == 1
    assert "cannot honour max_retries=3" in refused.stderr
    assert "Traceback" not in refused.stderr
    many = torchx("run", *scheduler, config, "dist.ddp", "-j", "2x1", "--cpu", "4096", *job)
    assert many.returncode == 1
    assert "2 nodes are asked, 0 of" in many.stderr

    begun = torchx("run", *scheduler, config, "dist.ddp", "-j", "2x1", *job)
    handle = begun.stdout.strip().rpartition("\n")[2]
    run = handle.rpartition("/")[2]
    try:
        assert begun.returncode == 0, begun.stderr
        assert handle.startswith("orchestrate://torchx/train-")
        told = [f"I am {rank} 2 {PAIR[rank]} red {handle} --lr 1e-4" for rank in range(2)]
        wait_until("both lines", lambda: _logged(torchx, handle, told), 60)
        listed = torchx("list", "-s", "orchestrate")
        assert _state(listed.stdout, handle) == "RUNNING", listed.stderr
        one = torchx("log", f"{handle}/train/1")
        assert told[1] in one.stdout
        assert told[0] not in one.stdout
        assert "RUNNING" in torchx("status", handle).stdout
    finally:
        cancelled = torchx("cancel", handle)
    assert cancelled.returncode == 0, cancelled.stderr
    assert _state(torchx("list", "-s", "orchestrate").stdout, handle) == "CANCELLED"
    assert not remains(hosts, run, PAIR)


def _logged(torchx: TorchX, handle: str, told: list[str]) -> bool:
    out = torchx("log", handle).stdout
    return all(line in out for line in told)


def _state(table: str, handle: str) -> str:
    """The last column of the app's row."""
    rows = [line.split() for line in table.splitlines() if handle in line]
    return rows[0][-1] if len(rows) == 1 else f"{len(rows)} rows: {table}"
