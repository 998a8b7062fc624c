"""The virtual hosts are separate machines, their faults do what they say, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest
from virtual_hosts_lib import cgroups, files, network, state
from virtual_hosts_lib.hosts import VirtualHosts
from virtual_hosts_lib.processes import Process, VirtualHostsError, identify, is_running
from virtual_hosts_lib.state import Faults, Host, Options, SlowLink, SlowNode, State

RaiseHosts = Callable[[Path, Options], VirtualHosts]

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "virtual_hosts"
PYTHON = [sys.executable, "-S", "-E", "-c"]
PORT = 7000

pytestmark = pytest.mark.hosts

SERVER = f"""
import socket
server = socket.create_server(("0.0.0.0", {PORT}))
print("listening", flush=True)
while True:
    connection, _ = server.accept()
    try:
        while data := connection.recv(65536):
            connection.sendall(data)
    except OSError:
        pass
"""
ECHO = """
import socket, sys, time
host, size, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
with socket.create_connection((host, %d), timeout=seconds) as connection:
    started = time.monotonic()
    connection.sendall(b"x" * size)
    left = size
    while left:
        left -= len(connection.recv(65536))
print(time.monotonic() - started)
"""
BUSY = """
import time
end = time.monotonic() + 1.2
while time.monotonic() < end:
    pass
print(time.process_time() / 1.2)
"""


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.02)


def ssh(hosts: VirtualHosts, name: str, command: str, seconds: int = 10) -> str:
    argv = ["ssh", "-F", str(hosts.ssh_config), "-o", "BatchMode=yes"]
    argv += ["-o", f"ConnectTimeout={seconds}", name, command]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise ConnectionError(done.stderr)
    return done.stdout.strip()


def run_in(hosts: VirtualHosts, name: str, *argv: str) -> str:
    done = hosts.exec(name, argv)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def echo(hosts: VirtualHosts, source: str, target: str, size: int = 1, seconds: float = 5) -> float:
    """Seconds that `size` bytes take from source to target and back; TimeoutError when cut."""
    done = hosts.exec(source, [*PYTHON, ECHO % PORT, target, str(size), str(seconds)])
    if done.returncode != 0:
        raise TimeoutError(done.stderr.strip().splitlines()[-1])
    return float(done.stdout)


@contextlib.contextmanager
def serving(hosts: VirtualHosts, *names: str) -> Iterator[None]:
    """An echo server on each of these hosts."""
    with contextlib.ExitStack() as stack:
        for name in names:
            argv = hosts.exec_argv(name, [*PYTHON, SERVER])
            server = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE))
            stack.callback(server.kill)
            assert server.stdout is not None
            assert server.stdout.readline() == b"listening\n"
        yield


def processes_of(directory: Path) -> list[int]:
    """Living processes whose command line names this set."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            is_ours = os.fsencode(directory) in words and b"virtual_hosts_lib" in b" ".join(words)
            if is_ours and identify(int(entry.name)):
                found.append(int(entry.name))
    return found


def living_in(pids: list[int]) -> list[Process]:
    """Every process that shares a namespace with one of these (and not with us)."""
    inodes = set().union(*map(namespaces, pids)) - namespaces(os.getpid())
    found = set()
    for path in Path("/proc").glob("[0-9]*/ns/*"):
        with contextlib.suppress(OSError):
            if str(path.readlink()) in inodes and (process := identify(int(path.parts[2]))):
                found.add(process)
    return list(found)


def namespaces(pid: int) -> set[str]:
    return {str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in ("net", "pid", "mnt", "uts")}


def leftovers(directory: Path) -> list[str]:
    """What a set left on this machine, in words; empty when it is gone without trace."""
    identifier = state.set_id(directory)
    links = subprocess.check_output(["ip", "-o", "link"], text=True, timeout=10)
    rules = subprocess.check_output(["iptables", "-S"], text=True, timeout=10)
    mounts = Path("/proc/self/mountinfo").read_text()
    found = cgroups.current_hierarchies()
    groups = [
        root / f"virtual-hosts-{identifier}" for root in (found.unified, found.cpu_v1) if root
    ]
    left = ["link"] * (identifier in links) + ["rules"] * ("10.123." in rules)
    left += ["mount"] * (str(directory) in mounts) + ["directory"] * directory.exists()
    left += [f"process {pid}" for pid in processes_of(directory)]
    return left + [str(group) for group in groups if group.exists()]


# What a host is.


def test_hosts_are_separate_machines(hosts: VirtualHosts) -> None:
    """Hostname, address, boot id, home, /tmp and processes belong to each host alone."""
    script = (
        'hostname; cat /proc/sys/kernel/random/boot_id; ls -A "$HOME" /tmp /run/lock /dev/shm;'
        'touch "$HOME/mine-$(hostname)" "/tmp/mine-$(hostname)"; ls /proc | grep -c "^[0-9]"'
    )
    said = [ssh(hosts, name, script).splitlines() for name in hosts.names]
    assert [lines[0] for lines in said] == ["vh1", "vh2", "vh3"]
    assert (
        len({lines[1] for lines in said} | {Path("/proc/sys/kernel/random/boot_id").read_text()})
        == 4
    )
    for name, lines in zip(hosts.names, said, strict=True):
        assert not any("mine-" in line for line in lines)
        assert int(lines[-1]) < 15
        assert (hosts.home(name) / f"mine-{name}").exists()
    assert not list(Path("/tmp").glob("mine-vh*"))
    with pytest.raises(ConnectionError, match="Read-only file system"):
        ssh(hosts, "vh1", "touch /usr/mine")


def test_interpreter_of_the_inventory_works_on_hosts(hosts: VirtualHosts) -> None:
    """The inventory's interpreter runs there even if it lies under /tmp or /root here."""
    assert json.dumps(sys.executable) in hosts.inventory.read_text()
    assert ssh(hosts, "vh3", f"{sys.executable} -c 'import asyncssh; print(6 * 7)'") == "42"


def test_asyncssh_connects_with_the_same_files(hosts: VirtualHosts) -> None:
    """asyncssh reads the generated ssh_config and checks the host key against known_hosts."""

    async def hostname(name: str) -> str:
        async with asyncssh.connect(name, config=[str(hosts.ssh_config)]) as connection:
            done = await connection.run("hostname", check=True)
            return str(done.stdout).strip()

    async def everyone() -> list[str]:
        return await asyncio.wait_for(asyncio.gather(*map(hostname, hosts.names)), 20)

    assert asyncio.run(everyone()) == hosts.names


def test_changed_host_key_is_refused(hosts: VirtualHosts, tmp_path: Path) -> None:
    """known_hosts holds real keys: another host's key under this name is an error."""
    swapped = hosts.directory.joinpath("known_hosts").read_text().replace("vh2,", "vh9,")
    (tmp_path / "known_hosts").write_text(swapped.replace(hosts.address("vh2"), "vh8"))
    argv = ["ssh", "-F", str(hosts.ssh_config), "-o", f"UserKnownHostsFile={tmp_path}/known_hosts"]
    done = subprocess.run([*argv, "vh2", "true"], capture_output=True, timeout=20, check=False)
    assert done.returncode == 255
    assert b"Host key verification failed" in done.stderr


def test_hosts_reach_each_other_by_name(hosts: VirtualHosts) -> None:
    """TCP works between every ordered pair of hosts, over loopback too, and nowhere outside."""
    with serving(hosts, *hosts.names):
        for source in hosts.names:
            for target in (*hosts.names, "localhost"):
                assert echo(hosts, source, target) < 5
    assert run_in(hosts, "vh1", "ip", "route").startswith(f"{hosts.state.subnet} dev eth0")
    assert "default" not in run_in(hosts, "vh1", "ip", "route")


def test_pid_1_reaps_orphans(hosts: VirtualHosts) -> None:
    """A process whose parent is gone leaves no zombie behind."""
    run_in(hosts, "vh1", "sh", "-c", "(sleep 0.1 &) ; true")
    eventually(lambda: "sleep" not in run_in(hosts, "vh1", "ps", "-e", "-o", "comm"))


def test_hosts_may_write_their_control_group(hosts: VirtualHosts) -> None:
    """A host owns a cgroup v2 tree, where the machine has one, as a systemd machine would."""
    if cgroups.current_hierarchies().unified is None:
        assert not run_in(hosts, "vh1", "sh", "-c", "ls /sys/fs/cgroup").count("cgroup.procs")
    else:
        script = "mkdir /sys/fs/cgroup/job && echo $$ > /sys/fs/cgroup/job/cgroup.procs"
        run_in(hosts, "vh1", "sh", "-c", script + " && grep ^0::/job$ /proc/self/cgroup")


# Faults.


def test_cut_data_between_two_hosts(hosts: VirtualHosts) -> None:
    """The pair hears silence, a third host and SSH live, heal restores the pair."""
    with serving(hosts, "vh2"):
        hosts.cut_data("vh2", "vh1")
        with pytest.raises(TimeoutError, match="timed out"):
            echo(hosts, "vh1", "vh2", seconds=0.7)
        assert echo(hosts, "vh3", "vh2") < 5
        assert ssh(hosts, "vh1", "hostname") == "vh1"
        hosts.heal("vh1")
        assert echo(hosts, "vh1", "vh2") < 5


def test_cut_all_data(hosts: VirtualHosts) -> None:
    """No pair talks, SSH lives everywhere; healing one host gives back its links alone."""
    with serving(hosts, "vh1", "vh2"):
        hosts.cut_all_data()
        with pytest.raises(TimeoutError, match="timed out"):
            echo(hosts, "vh3", "vh1", seconds=0.7)
        assert [ssh(hosts, name, "hostname") for name in hosts.names] == hosts.names
        hosts.heal("vh1")
        assert echo(hosts, "vh3", "vh1") < 5
        with pytest.raises(TimeoutError, match="timed out"):
            echo(hosts, "vh3", "vh2", seconds=0.7)


def test_cut_ssh_leaves_the_data_plane(hosts: VirtualHosts) -> None:
    """A new SSH connection hears nothing while the host serves its peers; heal restores it."""
    with serving(hosts, "vh2"):
        hosts.cut_ssh("vh2")
        with pytest.raises(ConnectionError, match="timed out"):
            ssh(hosts, "vh2", "hostname", seconds=1)
        assert echo(hosts, "vh1", "vh2") < 5
        hosts.heal("vh2")
        assert ssh(hosts, "vh2", "hostname") == "vh2"


def test_unplug_is_silent_and_plug_resumes(hosts: VirtualHosts) -> None:
    """An open connection gets no FIN and no RST, and goes on when the plug is back."""
    with serving(hosts, "vh3"), socket.create_connection((hosts.address("vh3"), PORT), 5) as line:
        line.sendall(b"before")
        assert line.recv(6) == b"before"
        hosts.unplug("vh3")
        line.sendall(b"after")
        line.settimeout(0.7)
        with pytest.raises(TimeoutError):
            line.recv(5)
        with pytest.raises(TimeoutError):
            socket.create_connection((hosts.address("vh3"), PORT), 0.7)
        hosts.plug("vh3")
        line.settimeout(10)
        assert line.recv(5) == b"after"


def test_slow_link_limits_rate_and_loses_packets(hosts: VirtualHosts) -> None:
    """200 kB take at least their time at 2 Mbit/s in one direction, and little after heal."""
    with serving(hosts, "vh2"):
        hosts.slow_link("vh2", rate="2mbit", loss=0.001)
        assert echo(hosts, "vh1", "vh2", 200_000, 20) > 200_000 * 8 / 2e6 * 0.9
        assert "slow link 2mbit" in hosts.status()[1].faults[0]
        hosts.heal("vh2")
        assert echo(hosts, "vh1", "vh2", 200_000) < 0.5


def test_slow_link_delays_or_names_the_missing_queue(hosts: VirtualHosts) -> None:
    """Delay needs the kernel's netem queue: it works, or the error says so and changes nothing."""
    refusal = ""
    try:
        hosts.slow_link("vh2", delay_ms=100)
    except VirtualHostsError as error:
        refusal = str(error)
    if refusal:
        assert "CONFIG_NET_SCH_NETEM" in refusal
        assert not hosts.status()[1].faults
        return
    with serving(hosts, "vh2"):
        assert echo(hosts, "vh1", "vh2") > 0.19


@pytest.mark.parametrize("method", ["auto", "signals"])
def test_slow_node_gets_its_share_of_cpu(hosts: VirtualHosts, method: str) -> None:
    """A busy thread gets at most 1/factor of a CPU (a quarter more for the edges of periods)."""
    hosts.slow_node("vh1", 2.7, method=method)  # type: ignore[arg-type]
    assert float(run_in(hosts, "vh1", *PYTHON, BUSY)) < 1.25 / 2.7
    throttle = hosts.state.faults.slow_nodes["vh1"].throttle
    hosts.heal("vh1")
    assert throttle is None or identify(throttle.pid) != throttle
    assert not hosts.status()[0].faults
    eventually(lambda: float(run_in(hosts, "vh1", *PYTHON, BUSY)) > 1.25 / 2.7, 20)


def test_reboot_is_a_power_cycle(hosts: VirtualHosts) -> None:
    """No FIN, all processes gone, /tmp empty, home kept, new boot id, same name and address."""
    look = "hostname; ls ~/kept /tmp; cat /proc/sys/kernel/random/boot_id"
    ssh(hosts, "vh2", "touch ~/kept /tmp/gone")
    before = ssh(hosts, "vh2", look).splitlines()
    with serving(hosts, "vh2"), socket.create_connection((hosts.address("vh2"), PORT), 5) as line:
        old = living_in([hosts.state.hosts[1].process.pid])
        hosts.reboot("vh2")
        line.settimeout(0.3)
        with pytest.raises(TimeoutError):
            line.recv(1)
    after = ssh(hosts, "vh2", look).splitlines()
    assert "gone" in before
    assert "gone" not in after
    assert after[:2] == ["vh2", "/root/kept"]
    assert after[-1] == hosts.state.hosts[1].boot_id != before[-1]
    assert len(old) >= 3
    eventually(lambda: not any(map(is_running, old)))
    with serving(hosts, "vh2"):
        assert echo(hosts, "vh1", "vh2") < 5


def test_fill_disk_needs_a_limited_home(hosts: VirtualHosts) -> None:
    """The machine's own disk is never filled."""
    with pytest.raises(VirtualHostsError, match="--home-size"):
        hosts.fill_disk("vh1")


# Sets.


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
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


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
        process.communicate(timeout=20)
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
