"""What a set of virtual hosts is made of, and what it leaves on this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from virtual_hosts_lib import cgroups, state
from virtual_hosts_lib.hosts import VirtualHosts
from virtual_hosts_lib.processes import Process, identify

from tests.time_limits import Deadline, scaled


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = Deadline(seconds)
    while not condition():
        assert not deadline.passed, f"condition not met within {deadline}"
        time.sleep(0.02)


def ssh(hosts: VirtualHosts, name: str, command: str, seconds: float = 10) -> str:
    """What a command says there. Raises ConnectionError, also when there is no answer in time."""
    argv = ["ssh", "-F", str(hosts.ssh_config), "-o", "BatchMode=yes"]
    argv += ["-o", f"ConnectTimeout={scaled(seconds):.0f}", name, command]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=scaled(30), check=False)
    if done.returncode != 0:
        raise ConnectionError(done.stderr)
    return done.stdout.strip()


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
    links = subprocess.check_output(["ip", "-o", "link"], text=True, timeout=scaled(10))
    rules = subprocess.check_output(["iptables", "-S"], text=True, timeout=scaled(10))
    mounts = Path("/proc/self/mountinfo").read_text()
    found = cgroups.current_hierarchies()
    groups = [
        root / f"virtual-hosts-{identifier}" for root in (found.unified, found.cpu_v1) if root
    ]
    left = ["link"] * (identifier in links) + ["rules"] * ("10.123." in rules)
    left += ["mount"] * (str(directory) in mounts) + ["directory"] * directory.exists()
    left += [f"process {pid}" for pid in processes_of(directory)]
    return left + [str(group) for group in groups if group.exists()]
