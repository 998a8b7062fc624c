"""Two runs that want the same GPUs or machines: one has them, the other is told so, or waits."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.processes import remains
from tests.hosts.running import Desk, Job
from tests.time_limits import Measured, scaled

pytestmark = pytest.mark.hosts

SMI = """#!/bin/sh
case "$*" in
*--query-gpu=index,uuid,memory.used*) echo "0, GPU-0, 4" ;;
*--query-gpu=*) echo "0, NVIDIA H200, GPU-0, 143771, 4, 570.86.15" ;;
esac
"""
TOOLS = "/usr/local/sbin"


@pytest.fixture
def gpus(desk: Desk, hosts: VirtualHosts) -> Iterator[None]:
    """Every host shows one GPU, and the inventory leaves it to the hosts what they have."""
    for name in hosts.names:
        tools = hosts.home(name) / "tools"
        tools.mkdir()
        (tools / "nvidia-smi").write_text(SMI)
        (tools / "nvidia-smi").chmod(0o755)
        _on(hosts, name, "mount", "--bind", "/root/tools", TOOLS)
    cluster = desk.project.parent / "with-gpus.yaml"
    cluster.write_text(hosts.inventory.read_text().replace("gpus: 0", ""))
    desk.cluster = cluster
    yield
    for name in hosts.names:
        _on(hosts, name, "umount", TOOLS)
        (hosts.home(name) / "tools" / "nvidia-smi").unlink()
        (hosts.home(name) / "tools").rmdir()


def _on(hosts: VirtualHosts, name: str, *argv: str) -> None:
    subprocess.run(hosts.exec_argv(name, list(argv)), check=True, timeout=scaled(20))


def go(hosts: VirtualHosts, job: Job) -> None:
    """Let the ranks of ``job`` end."""
    for name in hosts.names:
        (hosts.home(name) / f"go-{job.run}").touch()


def test_the_second_run_on_the_same_gpus_is_told_who_has_them(
    desk: Desk, hosts: VirtualHosts, gpus: None, measured: Measured
) -> None:
    """Exit 75 with the holder and since when; the first run is not disturbed."""
    first = desk.start("rank.py", "wait")
    first.wait_for_line("ready", 3)
    at = time.monotonic()
    _, ending = desk.run("rank.py", "stay")
    measured("occupied GPUs refused", time.monotonic() - at, 10)
    assert (ending.code, ending.result["status"]) == (75, "failed"), ending.err
    assert ending.result["failure"]["id"] == "OR-LOCK-001"
    assert f"in use by run {first.run}" in ending.result["failure"]["cause"]
    assert "since 20" in ending.result["failure"]["cause"]
    assert "(gpu-" in ending.result["failure"]["cause"]
    assert "--wait" in ending.err
    go(hosts, first)
    assert first.end().code == 0


def test_a_run_that_waits_gets_the_gpus_when_they_are_free(
    desk: Desk, hosts: VirtualHosts, gpus: None
) -> None:
    """It says what it waits for, holds nothing meanwhile, and then runs."""
    first = desk.start("rank.py", "wait")
    first.wait_for_line("ready", 3)
    second = desk.start("rank.py", "wait", options=["--wait", "60"])
    second.wait_for("Note")
    assert not second.events("Launched")
    go(hosts, first)
    assert first.end().code == 0
    second.wait_for_line("ready", 3)
    go(hosts, second)
    assert second.end().code == 0


def test_waiting_ends_at_its_time_and_at_an_interrupt(
    desk: Desk, hosts: VirtualHosts, gpus: None
) -> None:
    first = desk.start("rank.py", "wait")
    first.wait_for_line("ready", 3)
    _, ending = desk.run("rank.py", "stay", options=["--wait", "1"])
    assert ending.code == 75
    waiting = desk.start("rank.py", "stay", options=["--wait"])
    waiting.wait_for("Note")
    waiting.interrupt()
    assert waiting.end().code == 130
    assert not remains(hosts, waiting.run)
    go(hosts, first)
    assert first.end().code == 0


def test_an_exclusive_run_keeps_every_other_off_its_machines(
    desk: Desk, hosts: VirtualHosts
) -> None:
    """Also without GPUs; and runs that are not exclusive share a machine as ever."""
    shared = [desk.start("rank.py", "wait") for _ in range(2)]
    for job in shared:
        job.wait_for_line("ready", 3)
    _, refused = desk.run("rank.py", "stay", options=["--exclusive"])
    assert refused.code == 75
    for job in shared:
        go(hosts, job)
        assert job.end().code == 0
    alone = desk.start("rank.py", "wait", options=["--exclusive"])
    alone.wait_for_line("ready", 3)
    _, refused = desk.run("rank.py", "stay")
    assert refused.code == 75
    assert f"run {alone.run}" in refused.result["failure"]["cause"]
    go(hosts, alone)
    assert alone.end().code == 0


def test_locks_of_a_killed_coordinator_are_free_when_its_ranks_are_gone(
    desk: Desk, hosts: VirtualHosts, gpus: None
) -> None:
    """A dead owner holds nothing: its supervisor does, until it is stopped."""
    first = desk.start("rank.py", "wait")
    first.wait_for_line("ready", 3)
    first.abandon()
    _, refused = desk.run("rank.py", "stay")
    assert refused.code == 75
    assert desk.command("stop", first.run).returncode == 0
    second = desk.start("rank.py", "wait")
    second.wait_for_line("ready", 3)
    go(hosts, second)
    assert second.end().code == 0
