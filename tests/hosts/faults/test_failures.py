"""Whatever goes wrong on real hosts is named in time, and nothing is left running."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import time
from typing import Any

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.processes import kill_rank, remains
from tests.hosts.running import Desk, Ending, budgets, wait_until
from tests.time_limits import Measured, assert_within, scaled

pytestmark = pytest.mark.hosts

NAMED_S = 5.0
VANISHED_S = 20.0
CLEAN_S = 30.0


def failure(ending: Ending) -> dict[str, Any]:
    """The first cause, of a run that failed."""
    assert (ending.code, ending.result["status"]) == (1, "failed"), ending.err
    found = ending.result["failure"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("launcher", ["direct", "torchrun"])
def test_a_killed_rank_is_named_within_seconds(
    desk: Desk, hosts: VirtualHosts, launcher: str, measured: Measured
) -> None:
    """Node, rank, signal and last line; the others are stopped and every host is verified clean."""
    job = desk.start("rank.py", "last-words", launcher=launcher)
    job.wait_for_line("ready", 2)
    job.wait_for_line("the last line of rank 1", 1)
    at = kill_rank(hosts, "vh2", job.run, 1, signal.SIGKILL)
    job.wait_for("RankExited", rank=1)
    named_s = time.time() - at
    ending = job.end()
    measured(f"{launcher}: rank named after kill -9", named_s, NAMED_S)
    measured(f"{launcher}: all hosts verified clean", ending.at - at, CLEAN_S)
    cause = failure(ending)
    assert (cause["node"], cause["rank"]) == ("vh2", 1)
    assert "SIGKILL" in str(cause["cause"])
    assert cause["last_line"] == "the last line of rank 1"
    assert sorted(cause["others"]) == ["vh1/rank 0", "vh3/rank 2"]  # type: ignore[call-overload]
    assert ending.states == {"vh1": "stopped", "vh2": "failed", "vh3": "stopped"}
    assert "rank 1 on vh2 was killed by SIGKILL" in ending.err
    assert "| the last line of rank 1" in ending.err
    assert not remains(hosts, job.run)


@pytest.mark.parametrize(
    "mode,words,last_line",
    [
        ("exit", "exited with code 3", "giving up with 3"),
        ("raise", "exited with code 1", "RuntimeError: no such luck"),
        ("segfault", "was killed by SIGSEGV", "about to fault"),
    ],
)
def test_how_a_rank_ended_is_told(
    desk: Desk, hosts: VirtualHosts, mode: str, words: str, last_line: str
) -> None:
    """An exit code, an exception and a fault each get their own words."""
    job, ending = desk.run("rank.py", mode)
    cause = failure(ending)
    assert cause["cause"] == f"rank 1 on vh2 {words}"
    assert cause["last_line"] == last_line
    assert not remains(hosts, job.run)


def test_a_node_without_power_is_named(desk: Desk, hosts: VirtualHosts, measured: Measured) -> None:
    """No FIN, no RST: the node is named, the others end, and its lease ends what it still runs."""
    job = desk.start("rank.py", "stay", options=budgets(lease=10))
    job.wait_for_line("ready", 3)
    hosts.unplug("vh3")
    at = time.time()
    job.wait_for("NodeLost", node="vh3", within_s=60)
    measured("vanished node named", time.time() - at, VANISHED_S)
    ending = job.end()
    measured("run over after a node vanished", ending.at - at, VANISHED_S + CLEAN_S)
    cause = failure(ending)
    assert (cause["node"], cause["id"]) == ("vh3", "OR-LINK-001")
    assert ending.states == {"vh1": "stopped", "vh2": "stopped", "vh3": "lost"}
    assert not remains(hosts, job.run, ["vh1", "vh2"])
    wait_until("vh3 is clean", lambda: not remains(hosts, job.run, ["vh3"]), 30)
    measured("lease ended the ranks of the lost node", time.time() - at, 10 + CLEAN_S)
    hosts.plug("vh3")
    pattern = r".*; then: (ssh .*); once vh3 answers again, (.*) ends and.*"
    told = re.fullmatch(pattern, cause["remedy"])
    assert told is not None, cause["remedy"]
    pasted = shlex.split(told[1])
    assert subprocess.run(pasted, check=False, timeout=scaled(30)).returncode == 0, told[1]
    assert told[2] == f"orchestrate stop {job.run}"
    stopped = desk.command("stop", job.run)
    assert (stopped.returncode, "vh3: clean" in stopped.stderr) == (0, True), stopped.stderr
    assert desk.command("clean", job.run, "--discard").returncode == 0
    assert not (hosts.home("vh3") / ".orchestrate/node/runs" / job.run).exists()


def test_a_cut_of_ssh_costs_no_byte(desk: Desk, hosts: VirtualHosts) -> None:
    """The ranks go on while SSH is away; on the next link their logs arrive, each byte once."""
    lines = 1100
    log = hosts.directory / "hosts/vh2/sshd.log"
    links = log.read_text().count("Accepted publickey")
    job = desk.start("rank.py", "count", str(lines), options=budgets(silence=30))
    job.wait_for_line("line 50 of rank 1", 1)
    hosts.cut_ssh("vh2")
    written = hosts.home("vh2") / f".orchestrate/node/runs/{job.run}/vh2/attempt-1/logs/rank-1.out"
    at_least = written.read_bytes().count(b"\n") + 800
    cut_s = wait_until("8 s passed", lambda: written.read_bytes().count(b"\n") > at_least, 60)
    hosts.heal("vh2")
    ending = job.end()
    assert_within("SSH was cut for", cut_s, 15)
    assert cut_s >= 8
    assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
    assert log.read_text().count("Accepted publickey") == links + 2
    for rank, node in enumerate(hosts.names):
        expected = "".join(f"line {number} of rank {rank}\n" for number in range(lines))
        assert desk.log(job.run, node, f"rank-{rank}.out") == expected.encode()
    assert not remains(hosts, job.run)


def test_a_cut_data_plane_is_found_before_launch(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """SSH works, but a node cannot reach the head: refused within seconds, and never started."""
    hosts.cut_data("vh1", "vh3")
    at = time.time()
    job, ending = desk.run("rank.py", "stay")
    measured("cut data plane: refused before launch", ending.at - at, 15)
    assert ending.code == 4
    cause = ending.result["failure"]
    assert cause["id"] == "OR-NET-001"
    assert cause["cause"].startswith("vh1 and vh3 cannot open a TCP connection to each other")
    assert "the link between them is at fault" in cause["cause"]
    assert f"  next: {cause['remedy']}\n" in ending.err
    assert "between vh1 and vh3" in cause["remedy"]
    assert cause["remedy"].endswith("--nodes '!vh3'")
    assert not job.events("Launched")
    assert not remains(hosts, job.run)


def test_an_interpreter_that_does_not_exist_is_named(desk: Desk, hosts: VirtualHosts) -> None:
    """Found while preparing, with the node and what to do; nothing is started."""
    text = hosts.inventory.read_text()
    desk.cluster = desk.project.parent / "wrong.yaml"
    desk.cluster.write_text(
        text.replace('["vh[1-3]"]', '["vh[1-2]", {name: vh3, python: /opt/none/bin/python}]')
    )
    job, ending = desk.run("rank.py", "stay")
    assert ending.code == 4
    cause = ending.result["failure"]
    assert cause["node"] == "vh3"
    assert "/opt/none/bin/python" in cause["cause"]
    assert cause["remedy"]
    assert not job.events("Launched")
    assert not remains(hosts, job.run)


@pytest.mark.parametrize("launcher", ["direct", "torchrun"])
@pytest.mark.parametrize(
    "text,last_line",
    [
        ("def broken(:\n", "SyntaxError"),
        ("import not_a_module_anywhere\n", "No module named 'not_a_module_anywhere'"),
    ],
)
def test_a_script_that_cannot_start_is_told(
    desk: Desk, hosts: VirtualHosts, launcher: str, text: str, last_line: str
) -> None:
    """The interpreter's own words reach the user, whichever launcher started it."""
    desk.script("broken.py", text)
    job, ending = desk.run("broken.py", launcher=launcher, options=["--nodes", "vh1"])
    cause = failure(ending)
    assert (cause["node"], cause["rank"]) == ("vh1", 0)
    assert last_line in str(cause["last_line"])
    assert last_line in ending.err
    assert not remains(hosts, job.run)
