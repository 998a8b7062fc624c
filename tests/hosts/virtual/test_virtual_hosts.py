"""The virtual hosts are separate machines, and their faults do what they say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import pytest
from virtual_hosts_lib import cgroups
from virtual_hosts_lib.hosts import VirtualHosts
from virtual_hosts_lib.processes import VirtualHostsError, identify, is_running

from tests.hosts.sets import eventually, living_in, ssh
from tests.time_limits import assert_within, scaled

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


def run_in(hosts: VirtualHosts, name: str, *argv: str) -> str:
    done = hosts.exec(name, argv)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def echo(hosts: VirtualHosts, source: str, target: str, size: int = 1, seconds: float = 5) -> float:
    """Seconds that `size` bytes take from source to target and back; TimeoutError when cut."""
    limit = f"{scaled(seconds):g}"
    done = hosts.exec(source, [*PYTHON, ECHO % PORT, target, str(size), limit])
    if done.returncode != 0:
        raise TimeoutError(done.stderr.strip().splitlines()[-1])
    return float(done.stdout)


def reaches(hosts: VirtualHosts, source: str, target: str) -> bool:
    """Whether a byte comes back in time."""
    try:
        return echo(hosts, source, target) > 0
    except TimeoutError:
        return False


def shares(hosts: VirtualHosts, *names: str) -> list[float]:
    """What part of a CPU a busy thread gets on each of the hosts, side by side."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: run_in(hosts, name, *PYTHON, BUSY), names)
    return list(map(float, found))


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
        return await asyncio.wait_for(asyncio.gather(*map(hostname, hosts.names)), scaled(20))

    assert asyncio.run(everyone()) == hosts.names


def test_changed_host_key_is_refused(hosts: VirtualHosts, tmp_path: Path) -> None:
    """known_hosts holds real keys: another host's key under this name is an error."""
    swapped = hosts.directory.joinpath("known_hosts").read_text().replace("vh2,", "vh9,")
    (tmp_path / "known_hosts").write_text(swapped.replace(hosts.address("vh2"), "vh8"))
    argv = ["ssh", "-F", str(hosts.ssh_config), "-o", f"UserKnownHostsFile={tmp_path}/known_hosts"]
    done = subprocess.run(
        [*argv, "vh2", "true"], capture_output=True, timeout=scaled(20), check=False
    )
    assert done.returncode == 255
    assert b"Host key verification failed" in done.stderr


def test_hosts_reach_each_other_by_name(hosts: VirtualHosts) -> None:
    """TCP works between every ordered pair of hosts, over loopback too, and nowhere outside."""
    with serving(hosts, *hosts.names):
        for source in hosts.names:
            for target in (*hosts.names, "localhost"):
                assert reaches(hosts, source, target)
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
        assert reaches(hosts, "vh3", "vh2")
        assert ssh(hosts, "vh1", "hostname") == "vh1"
        hosts.heal("vh1")
        assert reaches(hosts, "vh1", "vh2")


def test_cut_all_data(hosts: VirtualHosts) -> None:
    """No pair talks, SSH lives everywhere; healing one host gives back its links alone."""
    with serving(hosts, "vh1", "vh2"):
        hosts.cut_all_data()
        with pytest.raises(TimeoutError, match="timed out"):
            echo(hosts, "vh3", "vh1", seconds=0.7)
        assert [ssh(hosts, name, "hostname") for name in hosts.names] == hosts.names
        hosts.heal("vh1")
        assert reaches(hosts, "vh3", "vh1")
        with pytest.raises(TimeoutError, match="timed out"):
            echo(hosts, "vh3", "vh2", seconds=0.7)


def test_cut_ssh_leaves_the_data_plane(hosts: VirtualHosts) -> None:
    """A new SSH connection hears nothing while the host serves its peers; heal restores it."""
    with serving(hosts, "vh2"):
        hosts.cut_ssh("vh2")
        with pytest.raises(ConnectionError, match="timed out"):
            ssh(hosts, "vh2", "hostname", seconds=1)
        assert reaches(hosts, "vh1", "vh2")
        hosts.heal("vh2")
        assert ssh(hosts, "vh2", "hostname") == "vh2"


def test_unplug_is_silent_and_plug_resumes(hosts: VirtualHosts) -> None:
    """An open connection gets no FIN and no RST, and goes on when the plug is back."""
    with (
        serving(hosts, "vh3"),
        socket.create_connection((hosts.address("vh3"), PORT), scaled(5)) as line,
    ):
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
        line.settimeout(scaled(10))
        assert line.recv(5) == b"after"


def test_slow_link_limits_rate_and_loses_packets(hosts: VirtualHosts) -> None:
    """200 kB take at least their time at 2 Mbit/s in one direction, and little after heal."""
    with serving(hosts, "vh2"):
        hosts.slow_link("vh2", rate="2mbit", loss=0.001)
        assert echo(hosts, "vh1", "vh2", 200_000, 20) > 200_000 * 8 / 2e6 * 0.9
        assert "slow link 2mbit" in hosts.status()[1].faults[0]
        hosts.heal("vh2")
        assert_within("200 kB over a healed link", echo(hosts, "vh1", "vh2", 200_000), 0.5)


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
    """A busy thread gets at most 1/factor of a CPU (a quarter more for the edges of periods), and
    after heal as much as one on another host, whatever else this machine does.
    """
    hosts.slow_node("vh1", 2.7, method=method)  # type: ignore[arg-type]
    assert shares(hosts, "vh1")[0] < 1.25 / 2.7
    throttle = hosts.state.faults.slow_nodes["vh1"].throttle
    hosts.heal("vh1")
    assert throttle is None or identify(throttle.pid) != throttle
    assert not hosts.status()[0].faults

    def equal() -> bool:
        healed, other = shares(hosts, "vh1", "vh2")
        return healed > 0.7 * other

    eventually(equal, 20)


def test_reboot_is_a_power_cycle(hosts: VirtualHosts) -> None:
    """No FIN, all processes gone, /tmp empty, home kept, new boot id, same name and address."""
    look = "hostname; ls ~/kept /tmp; cat /proc/sys/kernel/random/boot_id"
    ssh(hosts, "vh2", "touch ~/kept /tmp/gone")
    before = ssh(hosts, "vh2", look).splitlines()
    with (
        serving(hosts, "vh2"),
        socket.create_connection((hosts.address("vh2"), PORT), scaled(5)) as line,
    ):
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
        assert reaches(hosts, "vh1", "vh2")


def test_fill_disk_needs_a_limited_home(hosts: VirtualHosts) -> None:
    """The machine's own disk is never filled."""
    with pytest.raises(VirtualHostsError, match="--home-size"):
        hosts.fill_disk("vh1")
