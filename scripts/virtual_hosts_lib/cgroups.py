"""One control group per host: its CPU allowance, and a cgroup v2 tree that the host may write."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .processes import VirtualHostsError

PERIOD_US = 100_000

# Joins every cgroup.procs file named before "--", then becomes the command after it.
_JOIN_SCRIPT = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@"'


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Mount points on this machine; None where the kernel or container offers none."""

    unified: Path | None
    cpu_v1: Path | None


def find_hierarchies(mountinfo: str) -> Hierarchies:
    """Read /proc/self/mountinfo text: the cgroup2 mount and the v1 `cpu` controller's mount."""
    unified: Path | None = None
    cpu_v1: Path | None = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            unified = unified or Path(before.split()[4])
        elif kind == "cgroup" and "cpu" in options.split(","):
            cpu_v1 = cpu_v1 or Path(before.split()[4])
    return Hierarchies(unified, cpu_v1)


def current_hierarchies() -> Hierarchies:
    return find_hierarchies(Path("/proc/self/mountinfo").read_text())


def create(group: str, host: str, cpus: float | None) -> list[str]:
    """Make the host's groups below `group`; returns those that could be made, v2 first."""
    found = current_hierarchies()
    made: list[str] = []
    for root in (found.unified, found.cpu_v1):
        if root is None:
            continue
        path = root / group / host
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue  # read-only or not delegated: the host simply lives without this one
        if root == found.unified:
            _delegate_cpu(root / group)
        made.append(str(path))
    if cpus is not None:
        set_cpus(made, cpus)
    return made


def set_cpus(paths: Sequence[str], cpus: float | None) -> None:
    """Limit the groups to `cpus` CPUs of time (None lifts the limit).

    Raises VirtualHostsError when no group has a CPU controller.
    """
    quota = None if cpus is None else max(1000, int(cpus * PERIOD_US))
    for path in map(Path, paths):
        if (path / "cpu.max").exists():
            (path / "cpu.max").write_text(f"{quota or 'max'} {PERIOD_US}")
            return
        if (path / "cpu.cfs_quota_us").exists():
            (path / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (path / "cpu.cfs_quota_us").write_text(str(quota or -1))
            return
    raise VirtualHostsError(
        "no writable cgroup CPU controller here; slow-node can use --method signals"
    )


def has_cpu_controller(paths: Sequence[str]) -> bool:
    names = ("cpu.max", "cpu.cfs_quota_us")
    return any((Path(path) / name).exists() for path in paths for name in names)


def join_prefix(paths: Sequence[str]) -> list[str]:
    """argv prefix: the command after it runs inside these groups."""
    members = [f"{path}/cgroup.procs" for path in paths]
    return ["/bin/sh", "-c", _JOIN_SCRIPT, "join", *members, "--"] if members else []


def remove(group: str, *, seconds: float = 5.0) -> None:
    """Remove the group and all below it; its processes must be dead already."""
    found = current_hierarchies()
    deadline = time.monotonic() + seconds
    for root in (found.unified, found.cpu_v1):
        while root is not None and (root / group).is_dir() and not _remove_tree(root / group):
            if time.monotonic() > deadline:
                raise VirtualHostsError(f"cgroup {root / group} is still in use")
            time.sleep(0.01)


def _delegate_cpu(parent: Path) -> None:
    """Offer the cpu controller to the hosts, where cgroup v2 has it to give."""
    for directory in (parent.parent, parent):
        try:
            (directory / "cgroup.subtree_control").write_text("+cpu")
        except OSError:
            return


def _remove_tree(top: Path) -> bool:
    """Remove directories bottom up (the kernel removes the files); False when one is busy."""
    for directory, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True
