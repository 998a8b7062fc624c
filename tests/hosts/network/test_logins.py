"""Hosts that do not let us in any more, or answer badly: refused at once, or tried again."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts
from virtual_hosts_lib.state import Options

from tests.hosts.conftest import RaiseHosts
from tests.hosts.processes import look, remains
from tests.hosts.promises import clean, go_on, honest
from tests.hosts.running import RANK, Desk, Job, budgets, open_desk, wait_until
from tests.time_limits import Measured, assert_within

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]

CONNECT_S = 6.0  # where much else runs, hosts that answer need a while, too
REFUSED_S = 10.0
OVER_S = 25.0
SESSION = "sshd: root@notty"


def break_link(hosts: VirtualHosts, name: str) -> None:
    """End the host's SSH sessions, as soon as there is one; sshd itself answers on."""
    wait_until("a session", lambda: look(hosts, name, text=SESSION, signal=signal.SIGKILL))


def attempts(hosts: VirtualHosts, name: str) -> int:
    """How many connections the host's sshd has seen end before anybody was let in."""
    log = (hosts.directory / f"hosts/{name}/sshd.log").read_text()
    return len(set(re.findall(r"port (\d+).*\[preauth\]", log)))


@contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    """While inside, the file holds ``text``."""
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


def ends_refused(desk: Desk, hosts: VirtualHosts, job: Job, id: str, measured: Measured) -> None:
    """vh2 is given up after one try; the others are stopped, and its ranks end by their lease."""
    before = attempts(hosts, "vh2")
    at = time.time()
    break_link(hosts, "vh2")
    job.wait_for("NodeLost", node="vh2")
    measured(f"{id}: named", time.time() - at, REFUSED_S)
    ending = job.end()
    measured(f"{id}: over", ending.at - at, OVER_S)
    failure = honest(desk, job, ending)
    assert (failure["id"], failure["node"]) == (id, "vh2")
    assert ending.states == {"vh1": "stopped", "vh2": "lost", "vh3": "stopped"}
    assert attempts(hosts, "vh2") <= before + 1, "a refused login was tried again"
    clean(desk, hosts, job, ["vh1", "vh3"])
    wait_until("the lease ended vh2's ranks", lambda: not remains(hosts, job.run), 20)


def test_a_key_that_is_revoked_in_mid_run(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """The link breaks and the login is refused: once, for sites lock accounts."""
    job = desk.start("rank.py", "stay", options=budgets(lease=3))
    job.wait_for_line("ready", 3)
    with changed(hosts.home("vh2") / ".ssh/authorized_keys", ""):
        ends_refused(desk, hosts, job, "OR-SSH-002", measured)


def test_a_host_key_that_changes_in_mid_run(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """Somebody else answers under the name when the link is made again: nothing is told to them."""
    lines = (hosts.directory / "known_hosts").read_text().splitlines(keepends=True)
    key = {line.split(",")[0]: line.split()[1:] for line in lines}
    others = [f"vh2,{hosts.address('vh2')} {' '.join(key['vh3'])}\n"]
    others += [line for line in lines if not line.startswith("vh2,")]
    job = desk.start("rank.py", "stay", options=budgets(lease=3))
    job.wait_for_line("ready", 3)
    with changed(hosts.directory / "known_hosts", "".join(others)):
        ends_refused(desk, hosts, job, "OR-SSH-004", measured)


def test_a_wrong_user(desk: Desk, hosts: VirtualHosts) -> None:
    """Named before anything starts, with the other nodes untouched."""
    text = hosts.inventory.read_text()
    desk.cluster = desk.project.parent / "wrong.yaml"
    user = '["vh[1-2]", {name: vh3, user: nobody-here}]'
    desk.cluster.write_text(text.replace('["vh[1-3]"]', user))
    before = attempts(hosts, "vh3")
    job, ending = desk.run("rank.py", "stay")
    assert ending.code == 4, ending.err
    assert (ending.result["failure"]["id"], ending.result["failure"]["node"]) == (
        "OR-SSH-002",
        "vh3",
    )
    assert attempts(hosts, "vh3") == before + 1
    assert not job.events("Launched")
    assert not remains(hosts, job.run)


def test_links_that_break_are_made_again(desk: Desk, hosts: VirtualHosts) -> None:
    """All sessions of all hosts, three times: the run goes on, and no byte is lost or doubled."""
    job = desk.start("rank.py", "talk")
    for number in (30, 100, 200):
        job.wait_for_line(f"line {number} of rank 2", 1)
        for name in hosts.names:
            break_link(hosts, name)
    go_on(hosts, job)
    clean(desk, hosts, job)


def test_a_server_that_refuses_a_crowd(raise_hosts: RaiseHosts, tmp_path: Path) -> None:
    """MaxStartups 1 on one host that is six nodes: tried again, with a cap, until all are in."""
    options = Options(count=1, name_prefix="crowd", python=sys.executable, max_startups="1:100:1")
    with raise_hosts(tmp_path / "crowd", options) as crowd:
        aliases = f"Host n*\n  HostName {crowd.address('crowd1')}\n"
        config = crowd.ssh_config.read_text().replace("Host crowd1\n  User", "Host *\n  User")
        crowd.ssh_config.write_text(aliases + config)
        cluster = tmp_path / "six.yaml"
        cluster.write_text(crowd.inventory.read_text().replace('["crowd1"]', '["n[1-6]"]'))
        with open_desk(tmp_path, cluster) as desk:
            desk.script("rank.py", RANK)
            at = time.time()
            job, ending = desk.run("rank.py", "count", "3")
            assert_within("six nodes of one host with MaxStartups 1", ending.at - at, 40)
            assert (ending.code, ending.result["status"]) == (0, "succeeded"), ending.err
            log = (crowd.directory / "hosts/crowd1/sshd.log").read_text()
            assert "MaxStartups" in log
            assert not remains(crowd, job.run)


@contextmanager
def mute(hosts: VirtualHosts, name: str) -> Iterator[None]:
    """While inside, what connects to the host's port 22 is accepted and then hears nothing."""
    stopped = look(hosts, name, text="sshd: /usr/sbin/sshd", signal=signal.SIGSTOP)
    assert stopped
    try:
        yield
    finally:
        look(hosts, name, text="sshd: /usr/sbin/sshd", signal=signal.SIGCONT)


def test_a_server_that_accepts_and_is_silent(
    desk: Desk, hosts: VirtualHosts, measured: Measured
) -> None:
    """The handshake has a deadline: the node is named, and nothing is started."""
    with mute(hosts, "vh2"):
        at = time.time()
        job, ending = desk.run("rank.py", "stay", options=budgets(connect=CONNECT_S))
        measured("a silent sshd: refused", ending.at - at, CONNECT_S + REFUSED_S)
    assert ending.code == 4, ending.err
    assert ending.result["failure"]["node"] == "vh2"
    assert not job.events("Launched")
    assert not remains(hosts, job.run)


def test_a_silent_server_and_a_broken_link(desk: Desk, hosts: VirtualHosts) -> None:
    """In mid-run: tried again until it answers, within `silence`."""
    job = desk.start("rank.py", "wait", options=budgets(silence=30))
    job.wait_for_line("ready", 3)
    with mute(hosts, "vh2"):
        break_link(hosts, "vh2")
        wait_until("somebody waits for the banner", lambda: half_open(hosts, "vh2"), 15)
    go_on(hosts, job)
    clean(desk, hosts, job)


def half_open(hosts: VirtualHosts, name: str) -> bool:
    """Whether a connection waits in the listener's queue."""
    said = hosts.exec(name, ["sh", "-c", "cat /proc/net/tcp"])
    port = ":0016 "
    rows = [line.split() for line in said.stdout.splitlines()[1:]]
    return any(row[1].endswith(port.strip()) and row[3] == "01" for row in rows)
