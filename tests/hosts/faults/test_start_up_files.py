"""A login shell's start-up file that swallows what SSH hands over: named, and never a success."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.processes import remains
from tests.hosts.running import Desk
from tests.time_limits import Measured

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

CONNECT_S = 8
# Shells that end, and shells that something else replaces.
ENDS = ("exit 0", "echo moved to cluster two; exit 0")
REPLACED = ("exec sh", "exec tmux")


@contextmanager
def bashrc(hosts: VirtualHosts, name: str, line: str) -> Iterator[None]:
    """While inside, the host's login shell reads ``line`` first."""
    file: Path = hosts.home(name) / ".bashrc"
    before = file.read_text() if file.exists() else None
    file.write_text(f"{line}\n")
    try:
        yield
    finally:
        file.unlink() if before is None else file.write_text(before)


def blames_the_shell(text: str) -> None:
    assert "vh2" in text
    assert "login shell" in text
    assert "start-up files" in text
    assert "Python" not in text
    assert "look at its load" not in text


@pytest.mark.parametrize("line", [*ENDS, *REPLACED])
def test_exec_does_not_count_the_node_as_done(
    desk: Desk, hosts: VirtualHosts, line: str, measured: Measured
) -> None:
    """The others answer; the node is named, and the exit code is not 0."""
    cluster = ("--cluster", str(desk.cluster))
    with bashrc(hosts, "vh2", line):
        at = time.time()
        done = desk.command("exec", *cluster, "--connect-timeout", f"{CONNECT_S}", "--", "hostname")
        measured(f"exec, start-up file {line!r}", time.time() - at, CONNECT_S + 10)
    assert done.returncode == (1 if "tmux" in line else 4)
    assert {"vh1", "vh3"} <= set(done.stdout.split())
    assert "vh2" not in done.stdout
    blames_the_shell(done.stderr)
    assert ("moved to cluster two" in done.stderr) == ("moved" in line)
    assert ("not a terminal" in done.stderr) == ("tmux" in line)


@pytest.mark.parametrize("line", [ENDS[1], REPLACED[0]])
def test_probe_and_run_name_the_start_up_file(
    desk: Desk, hosts: VirtualHosts, line: str, measured: Measured
) -> None:
    """Within the budget for connecting, and without a word of the agent's source to the shell."""
    cluster = ("--cluster", str(desk.cluster), "--connect-timeout", f"{CONNECT_S}", "--json")
    with bashrc(hosts, "vh2", line):
        at = time.time()
        probed = desk.command("probe", *cluster)
        measured(f"probe, start-up file {line!r}", time.time() - at, 2 * CONNECT_S + 10)
        at = time.time()
        budget = ["--budget", f"connect={CONNECT_S}"]
        job, ending = desk.run("rank.py", "stay", options=budget)
        measured(f"run, start-up file {line!r}", time.time() - at, 2 * CONNECT_S + 10)
    records = [json.loads(text) for text in probed.stdout.splitlines()]
    (error,) = [r["error"] for r in records if r.get("node") == "vh2"]
    assert probed.returncode == 4
    assert error["id"] == "OR-SSH-011"
    blames_the_shell(f"vh2 {error['what']}")
    assert ending.code == 4, ending.err
    failure = ending.result["failure"]
    assert (failure["id"], failure["node"]) == ("OR-SSH-011", "vh2")
    blames_the_shell(ending.err)
    assert not remains(hosts, job.run)


def test_sync_names_the_start_up_file(desk: Desk, hosts: VirtualHosts) -> None:
    """What was not sent is no success either."""
    with bashrc(hosts, "vh2", "exit 0"):
        done = desk.command("sync", "--cluster", str(desk.cluster))
    assert done.returncode == 4
    blames_the_shell(done.stdout + done.stderr)
