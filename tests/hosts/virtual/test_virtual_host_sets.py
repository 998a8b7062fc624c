"""Sets of virtual hosts: made beside each other, commanded, cut short, and gone without trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from virtual_hosts_lib import cgroups, files, network, state
from virtual_hosts_lib.hosts import VirtualHosts
from virtual_hosts_lib.processes import Process, VirtualHostsError, is_running
from virtual_hosts_lib.state import Faults, Host, Options, SlowLink, SlowNode, State

from tests.hosts.conftest import RaiseHosts
from tests.hosts.sets import eventually, leftovers, living_in, processes_of, ssh
from tests.time_limits import communicate, scaled

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "virtual_hosts"

pytestmark = pytest.mark.hosts


def test_second_set_coexists_and_goes_without_trace(
    hosts: VirtualHosts, raise_hosts: RaiseHosts, tmp_path: Path
) -> None:
    """A set of another kind (user, noise, small home, CPU limit) lives and dies on its own."""
    directory = tmp_path / "second"
    options = Options(
        count=2, name_prefix="n", user="ada", noisy=True, home_size="4m", cpus=0.5
    )  # fmt: skip
    with raise_hosts(directory, options) as second:
        assert second.state.subnet != hosts.state.subnet
        said = ssh(second, "n2", "id -un; pwd").splitlines()
        assert said == [files.NOISE, "ada", "/home/ada"]
        second.fill_disk("n1")
        with pytest.raises(ConnectionError, match="No space left"):
            ssh(second, "n1", "echo more > ~/more")
        second.reboot("n1")
        second.heal("n1")
        ssh(second, "n1", "echo more > ~/more")
        ssh(second, "n1", "setsid sleep 1000 > /dev/null 2>&1 < /dev/null &")
        pids = [host.process.pid for host in second.state.hosts] + [second.state.fabric.pid]
        old = living_in(pids)
        assert len(old) >= 6
        assert second.down()
        assert not any(map(is_running, old))
    assert not leftovers(directory)
    assert not second.down()
    assert ssh(hosts, "vh1", "hostname") == "vh1"


def cli(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(SCRIPT), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=scaled(60), check=False)


def test_command_line(hosts: VirtualHosts) -> None:
    """up is idempotent and refuses other options; exec passes the exit code; status is JSON."""
    where = ("--dir", str(hosts.directory))
    pids = [host.pid for host in hosts.status()]
    assert cli("up", "3", *where).returncode == 0
    assert [host.pid for host in hosts.status()] == pids
    other = cli("up", "4", *where)
    assert (other.returncode, "next: virtual_hosts down" in other.stderr) == (1, True)
    assert cli("exec", *where, "vh2", "--", "sh", "-c", "exit 7").returncode == 7
    late = cli("exec", "vh2", *where, "--", "sh", "-c", "hostname; exit 7", "--")
    assert (late.returncode, late.stdout) == (7, "vh2\n"), late.stderr
    lost = cli("exec", "vh2", *where, "hostname")
    assert (lost.returncode, "exec HOST [--dir DIR] -- CMD" in lost.stderr) == (2, True)
    line = cli("exec", *where, "vh2", "--", "exit 3")
    assert (line.returncode, line.stderr.endswith("-- sh -c 'exit 3'\n")) == (127, True)
    assert cli("cut-ssh", "vh3", *where).returncode == 0
    status = json.loads(cli("status", "--json", *where).stdout)
    assert [host["faults"] for host in status["hosts"]] == [[], [], ["ssh cut"]]
    assert cli("heal", *where).returncode == 0
    unknown = cli("unplug", "vh7", *where)
    assert (unknown.returncode, "there are vh1, vh2, vh3" in unknown.stderr) == (1, True)
    assert cli("status", "--dir", "/nonexistent/hosts").returncode == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_up_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and TERM clean up; after KILL the hosts end alone and down removes the files."""
    directory = tmp_path / "cut-short"
    argv = [sys.executable, str(SCRIPT), "up", "6", "--dir", str(directory)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        eventually(lambda: len(processes_of(directory)) >= 3)
        process.send_signal(number)
        communicate(process, 20)
    assert process.returncode != 0
    if number == signal.SIGKILL:
        eventually(lambda: not processes_of(directory))
        VirtualHosts(directory).down()
    assert not leftovers(directory)


def test_up_recovers_from_a_dead_host(raise_hosts: RaiseHosts, tmp_path: Path) -> None:
    """When hosts died behind our back, up removes the remains and makes the set anew."""
    directory = tmp_path / "recovered"
    with raise_hosts(directory, Options(count=1)) as hosts:
        os.kill(hosts.state.hosts[0].process.pid, signal.SIGKILL)
        eventually(lambda: not hosts.status()[0].running)
        raise_hosts(directory, Options(count=1))
        assert ssh(hosts, "vh1", "hostname") == "vh1"


def test_another_versions_set_can_be_removed(raise_hosts: RaiseHosts, tmp_path: Path) -> None:
    """down needs no more of the state file than the processes that it names."""
    hosts = raise_hosts(tmp_path / "old", Options(count=1))
    path = hosts.directory / "hosts.json"
    path.write_text(path.read_text().replace('"subnet"', '"network"'))
    with pytest.raises(VirtualHostsError, match="another version"):
        hosts.heal()
    assert hosts.down()
    assert not leftovers(hosts.directory)


def test_directory_with_other_files_is_refused(tmp_path: Path) -> None:
    """up never takes over, and down never empties, a directory that it did not make."""
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(VirtualHostsError, match="holds other files"):
        VirtualHosts.up(tmp_path, Options(count=1))
    assert not VirtualHosts(tmp_path).down()
    assert (tmp_path / "thesis.tex").read_text() == "dear"


# Pure parts.


def make_state(count: int) -> State:
    made = [
        Host(name=f"vh{i}", index=i, address=f"10.123.0.{i}", boot_id="b", process=Process(i, i))
        for i in range(1, count + 1)
    ]
    return State(
        directory="/d", subnet="10.123.0.0/24", coordinator="10.123.0.254",
        shared=[],
        fabric=Process(9, 9), options=Options(count=count), hosts=made,
    )  # fmt: skip


def test_subnet_avoids_what_the_machine_uses() -> None:
    """The first /24 that overlaps no route is taken; no room is an error that says so."""
    taken = [network.Network("10.123.0.0/23"), network.Network("10.123.2.128/25")]
    assert str(network.choose_subnet("10.123.0.0/16", 3, taken)) == "10.123.3.0/24"
    with pytest.raises(VirtualHostsError, match="no free subnet"):
        network.choose_subnet("10.123.0.0/24", 3, taken)
    with pytest.raises(VirtualHostsError, match="no room for 5"):
        network.choose_subnet("10.200.0.0/29", 5, [])


def test_state_survives_its_file() -> None:
    """Every fault is read back as it was written."""
    made = make_state(3)
    made.faults = Faults(
        cut_pairs={("vh1", "vh2")}, cut_ssh={"vh3"}, unplugged={"vh1"}, filled={"vh2"},
        slow_links={"vh1": SlowLink(rate="1mbit", loss=0.5)},
        slow_nodes={
            "vh1": SlowNode(factor=2.0), "vh2": SlowNode(factor=3.0, throttle=Process(5, 6)),
        },
    )  # fmt: skip
    text = state.dump_state(made)
    assert state.load_state(text) == made
    assert {process.pid for process in state.find_processes(json.loads(text))} == {1, 2, 3, 5, 9}


def test_cut_of_all_pairs_is_one_rule() -> None:
    """The number of rules does not grow with the square of the hosts."""
    made = make_state(40)
    made.faults.cut_pairs = made.all_pairs()
    assert network.render_rules(made).count("FORWARD !") == 1
    assert network.render_rules(made).count("-A FORWARD") == 1


def test_hierarchies_of_unified_and_legacy_machines() -> None:
    """Both cgroup layouts are recognised from mountinfo; cpuset or cpuacct alone is not cpu."""
    unified = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
    legacy = (
        "33 31 0:30 / /c/cpuacct rw - cgroup cgroup rw,cpuacct\n"
        "34 31 0:31 / /c/cpu rw - cgroup cgroup rw,cpu\n"
        "41 31 0:38 / /c/unified rw - cgroup2 cgroup2 rw\n"
    )
    assert cgroups.find_hierarchies(unified) == cgroups.Hierarchies(Path("/sys/fs/cgroup"), None)
    expected = cgroups.Hierarchies(Path("/c/unified"), Path("/c/cpu"))
    assert cgroups.find_hierarchies(legacy) == expected
