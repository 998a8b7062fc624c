"""Terminals that close, stop and interrupt, and coordinators without one, on real hosts."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.processes import remains
from tests.hosts.running import Desk, Job, budgets, wait_until
from tests.hosts.terminal import CTRL_C, CTRL_Z, Terminal, on_terminal
from tests.time_limits import Measured, budget

pytestmark = pytest.mark.hosts

# A ProxyCommand that counts how often it was begun.
RELAY = """
import os, socket, sys, threading
begun, host, port = sys.argv[1:]
with open(begun, "a") as file:
    file.write(host + "\\n")
link = socket.create_connection((host, int(port)))

def up():
    while data := os.read(0, 65536):
        link.sendall(data)
    link.shutdown(socket.SHUT_WR)

threading.Thread(target=up, daemon=True).start()
while data := link.recv(65536):
    os.write(1, data)
"""


def unique(name: str) -> str:
    """A run id that is on no other command line of this machine."""
    return f"{name}-{uuid.uuid4().hex}"


def words(desk: Desk, run: str, *job: str, options: Sequence[str] = ()) -> list[str]:
    fixed = ["--cluster", str(desk.cluster), "--launcher", "direct", "--run-id", run]
    fixed.append("--no-fabric-probe")
    return ["run", *fixed, *options, "--", "rank.py", *job]


def result_of(desk: Desk, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((desk.folder(run) / "result.json").read_text())
    return found


def ranks_ready(terminal: Terminal, desk: Desk, run: str) -> None:
    """All three ranks wrote their line, whether the terminal shows it or not."""
    logs = [desk.folder(run) / "logs" / f"vh{n + 1}" / f"rank-{n}.out" for n in range(3)]

    def ready() -> bool:
        return all(log.exists() and b"ready" in log.read_bytes() for log in logs)

    try:
        wait_until(f"ranks of {run}", ready, 40)
    except AssertionError as error:
        error.add_note(terminal.screen[-2000:])
        raise


def let_end(hosts: VirtualHosts, run: str) -> None:
    for name in hosts.names:
        (hosts.home(name) / f"go-{run}").touch()


def test_a_closed_terminal_ends_nothing(desk: Desk, hosts: VirtualHosts) -> None:
    """The run goes on to its end; every log byte and the result are there, and attach works."""
    run = unique("closed")
    with on_terminal(desk, *words(desk, run, "wait", "several", "lines")) as terminal:
        ranks_ready(terminal, desk, run)
        terminal.hang_up()
        attached = Job(run, desk.popen("attach", run, "--json", "--follow"))
        attached.wait_for_line("ready", 3)
        assert terminal.process.poll() is None
        assert {host: len(found) for host, found in remains(hosts, run).items()} == dict.fromkeys(
            hosts.names, 2
        )
        let_end(hosts, run)
        assert attached.end().code == 0
        assert terminal.end() == 0
    assert result_of(desk, run)["status"] == "succeeded"
    expected = ["several", "lines", "ready"]
    assert attached.lines() == {f"vh{n + 1}/rank-{n}.out": expected for n in range(3)}
    assert not remains(hosts, run)


def test_hangup_without_a_terminal(desk: Desk, hosts: VirtualHosts) -> None:
    """HUP asks for nothing: output that is no terminal goes on, up to the one result."""
    job = desk.start("rank.py", "wait")
    job.wait_for_line("ready", 3)
    job.interrupt(signal.SIGHUP)
    let_end(hosts, job.run)
    assert job.end().code == 0
    assert not job.events("StopRequested")
    assert not remains(hosts, job.run)


def test_three_times_ctrl_c(desk: Desk, hosts: VirtualHosts, measured: Measured) -> None:
    """The second says what it waits for; the third leaves with the command that ends the rest."""
    run = unique("thrice")
    with on_terminal(desk, *words(desk, run, "stubborn", options=budgets(grace=60))) as terminal:
        ranks_ready(terminal, desk, run)
        terminal.press(CTRL_C)
        terminal.wait_for("SIGINT: stopping gracefully (Ctrl-C again")
        hosts.cut_ssh("vh3")
        terminal.press(CTRL_C)
        terminal.wait_for("SIGINT: force-killing; waiting for")
        terminal.press(CTRL_C)
        began = time.monotonic()
        assert terminal.end() == 130
        measured("third Ctrl-C: gone", time.monotonic() - began, 3)
    last = terminal.screen[terminal.screen.index("LEFT: ") :].splitlines()
    assert "ranks may still run, unattended; ranks end 60 s after the coordinator" in last[0]
    assert f"next: orchestrate stop {run}: clean up; orchestrate resume {run}: continue" in last[1]
    assert len(last) == 2
    assert "0 ranks" not in terminal.screen
    listed = desk.command("ps")
    assert f"{run}  unattended" in listed.stdout
    assert "ranks may still be running; orchestrate stop RUN: clean up" in listed.stderr
    hosts.heal("vh3")
    assert desk.command("stop", run).returncode == 0
    assert not remains(hosts, run)


def test_suspended_for_less_than_the_lease(desk: Desk, hosts: VirtualHosts) -> None:
    """Ctrl-Z for longer than a silent node may be, then fg: the run goes on and succeeds."""
    run = unique("short")
    with on_terminal(desk, *words(desk, run, "wait")) as terminal:
        ranks_ready(terminal, desk, run)
        terminal.press(CTRL_Z)
        wait_until("suspended", lambda: terminal.stopped)
        assert "suspended; ranks end 60 s after the coordinator's last heartbeat" in terminal.screen
        # The shortest time that shows it: more than the 10 s of silence that lose a node.
        time.sleep(12)
        os.kill(terminal.process.pid, signal.SIGCONT)
        terminal.wait_for("continued after 12")
        let_end(hosts, run)
        assert terminal.end() == 0
    assert result_of(desk, run)["status"] == "succeeded"
    assert not remains(hosts, run)


def test_suspended_for_longer_than_the_lease(desk: Desk, hosts: VirtualHosts) -> None:
    """The nodes end the ranks themselves; whoever comes back is told that they did, and why."""
    run = unique("long")
    lease = f"{budget(3):g}"
    options = ("--unattended", lease, *budgets(grace=1))
    with on_terminal(desk, *words(desk, run, "stay", options=options)) as terminal:
        ranks_ready(terminal, desk, run)
        terminal.press(CTRL_Z)
        wait_until("suspended", lambda: terminal.stopped)
        wait_until("the ranks are gone", lambda: not remains(hosts, run), 20)
        os.kill(terminal.process.pid, signal.SIGCONT)
        code = terminal.end()
    result = result_of(desk, run)
    assert (code, result["status"]) == (result["exit_code"], "failed")
    assert result["failure"]["id"] == "OR-LEASE-001"
    assert f"lease expired after {lease} s" in result["failure"]["cause"]
    assert not remains(hosts, run)


def test_detached(desk: Desk, hosts: VirtualHosts) -> None:
    """The foreground ends when the ranks run; the coordinator has no terminal and can be stopped,
    followed and found like any other.
    """
    run = unique("away")
    with on_terminal(desk, *words(desk, run, "wait", options=("--detach",))) as terminal:
        assert terminal.end() == 0
        assert terminal.screen.count(run) >= 4, terminal.screen
        assert f"orchestrate attach {run}" in terminal.screen
    ranks_ready(terminal, desk, run)
    pid = json.loads((desk.folder(run) / "coordinator.json").read_text())["pid"]
    status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    session, tty = int(status[3]), int(status[4])
    assert (session == os.getsid(0), tty) == (False, 0)
    assert f"{run}  running" in desk.command("ps").stdout
    attached = Job(run, desk.popen("attach", run, "--json"))
    attached.wait_for("RankStarted", 3)
    assert desk.command("stop", run).returncode == 0
    assert attached.end().code == 143
    assert not remains(hosts, run)
    wait_until("the coordinator ended", lambda: not Path(f"/proc/{pid}").exists(), 10)


@pytest.mark.parametrize("key,code", [(CTRL_C, 130), (b"", 0)])
def test_the_terminal_leaves_proxies_alone(
    desk: Desk, hosts: VirtualHosts, tmp_path: Path, key: bytes, code: int
) -> None:
    """Neither Ctrl-C nor a closed terminal ends the programs that links go through."""
    relay = tmp_path / "relay.py"
    relay.write_text(RELAY)
    config = tmp_path / "ssh_config"
    proxy = f"  ProxyCommand {sys.executable} {relay} {tmp_path / 'begun'} %h %p\n"
    config.write_text(f"Host vh*\n{proxy}{hosts.ssh_config.read_text()}")
    cluster = tmp_path / "proxied.yaml"
    cluster.write_text(hosts.inventory.read_text().replace(str(hosts.ssh_config), str(config)))
    run = unique("proxied")
    begun = tmp_path / "begun"
    options = ("--cluster", str(cluster))
    with on_terminal(desk, *words(desk, run, "wait", options=options)) as terminal:
        ranks_ready(terminal, desk, run)
        before = begun.read_text()
        if key:
            terminal.press(key)
        else:
            terminal.hang_up()
            let_end(hosts, run)
        assert terminal.end() == code
    assert begun.read_text() == before
    assert not remains(hosts, run)
