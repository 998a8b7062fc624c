"""Signs of a host that holds its GPUs back: slow clocks, and processes that cannot be ended."""

from __future__ import annotations

import time

from orchestrator.node_agent.base.sysfs import list_names, name_and_user, parse_int, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

AGAIN_S = 0.05
MAX_STUCK = 64
MAX_GOVERNORS = 16
KERNEL_THREAD = 0x00200000  # PF_KTHREAD of linux/sched.h: sleeps as it likes
# Fields of /proc/PID/stat after the name in parentheses, counted from the state (proc(5)).
STATE, FLAGS, THREADS, STARTED = 0, 6, 17, 19


def find_clocks(sys: str = "/sys") -> dict[str, Any]:
    """``governors`` of the CPUs, each once: () where the kernel sets no clocks, None where the
    governors cannot be read; and the ``clock_source`` that every look at the time costs.
    """
    folder = f"{sys}/devices/system/cpu/cpufreq"
    policies = [name for name in list_names(folder) if name.startswith("policy")]
    read = {read_text(f"{folder}/{name}/scaling_governor", 64) for name in policies}
    known = sorted(filter(None, read))[:MAX_GOVERNORS]
    clock = f"{sys}/devices/system/clocksource/clocksource0/current_clocksource"
    return {
        "governors": None if policies and not known else known,
        "clock_source": read_text(clock, 64),
    }


def find_processes(proc: str = "/proc", again_s: float = AGAIN_S) -> dict[str, Any]:
    """``zombies``, and ``stuck``: processes in one uninterruptible sleep at two looks, ``again_s``
    apart, and zombies with threads that are still there. None where no process can be seen.
    """
    pids = [name for name in list_names(proc) if name.isdigit()]
    found = dict(_states(proc, pids))
    if not found:
        return {"zombies": None, "stuck": None}
    suspects = {pid: _sleeps(proc, pid) for pid, fields in found.items() if _cannot_end(fields)}
    if suspects:
        time.sleep(again_s)
    again = [pid for pid, fields in _states(proc, list(suspects)) if _cannot_end(fields)]
    stuck = [pid for pid in again if _sleeps(proc, pid) == suspects[pid]][:MAX_STUCK]
    return {
        "zombies": sum(fields[STATE] == "Z" for fields in found.values()),
        "stuck": [{**_described(proc, pid, found[pid]), "sleeps": suspects[pid]} for pid in stuck],
    }


def _sleeps(proc: str, pid: str) -> int | None:
    """How often it went to sleep: the same number again is the same sleep."""
    _, name, rest = read_text(f"{proc}/{pid}/status", 8192).partition("\nvoluntary_ctxt_switches:")
    return parse_int(rest.split()[0]) if name and rest.split() else None


def _states(proc: str, pids: list[str]) -> Iterator[tuple[str, list[str]]]:
    for pid in pids:
        fields = read_text(f"{proc}/{pid}/stat", 1024).rpartition(")")[2].split()
        if len(fields) > STARTED:
            yield pid, fields


def _cannot_end(fields: list[str]) -> bool:
    if fields[STATE] == "Z":
        return int(fields[THREADS]) > 1
    return fields[STATE] == "D" and not int(fields[FLAGS]) & KERNEL_THREAD


def _described(proc: str, pid: str, fields: list[str]) -> dict[str, Any]:
    return {
        "pid": int(pid),
        "started": int(fields[STARTED]),
        "state": fields[STATE],
        **name_and_user(f"{proc}/{pid}"),
    }


def uptime_s() -> float:
    """Seconds since the boot, with those that the machine slept."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
