"""What the kernel tells of a process that may hang: its state, what it waits in, what it uses."""

from __future__ import annotations

import os
import time

from orchestrator.node_agent.base.sysfs import parse_int
from orchestrator.node_agent.process.processes import FoundProcess, find_process, list_descendants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SAMPLE_S = 1.0
MAX_BELOW = 16
MAX_ENVIRON_BYTES = 1024 * 1024
STOPPED = "Tt"
# The calls that a rank's main thread waits in, as its machine numbers them.
CALLS = {
    "x86_64": {
        0: "read", 7: "poll", 23: "select", 35: "nanosleep", 45: "recvfrom", 47: "recvmsg",
        61: "wait4", 202: "futex", 230: "clock_nanosleep", 232: "epoll_wait", 247: "waitid",
        270: "pselect6", 271: "ppoll", 281: "epoll_pwait", 43: "accept", 288: "accept4",
        42: "connect", 72: "fcntl", 73: "flock", 17: "pread64", 1: "write", 24: "sched_yield",
    },
    "aarch64": {
        63: "read", 73: "ppoll", 72: "pselect6", 101: "nanosleep", 207: "recvfrom",
        212: "recvmsg", 260: "wait4", 98: "futex", 115: "clock_nanosleep", 22: "epoll_pwait",
        95: "waitid", 202: "accept", 242: "accept4", 203: "connect", 25: "fcntl", 32: "flock",
        67: "pread64", 64: "write", 124: "sched_yield",
    },
}  # fmt: skip


def process_vitals(pid: int) -> dict[str, Any]:
    """Two looks at ``pid``, ``SAMPLE_S`` apart. ``state`` "" = there is no such process.

    A process below it that is stopped counts as the rank's own state: the rank waits for it. An
    uninterruptible sleep counts if both looks saw it: a single one may be an ordinary read.
    """
    before, began = find_process(pid), time.monotonic()
    ticks = _ticks(pid)
    if before is None:
        return {"pid": pid, "state": ""}
    time.sleep(SAMPLE_S)
    after, spent = find_process(pid), _ticks(pid) - ticks
    if after is None or after.start_time != before.start_time:
        return {"pid": pid, "state": ""}
    seconds = spent / os.sysconf("SC_CLK_TCK")
    below = list_descendants(pid)[:MAX_BELOW]
    return {
        "pid": pid,
        "comm": after.comm,
        "state": _state(before.state, after.state, below),
        "waits_in": waits_in(pid),
        "wchan": _text(pid, "wchan", 64),
        "syscall": _text(pid, "syscall", 200),
        "threads": _threads(pid),
        "cpu": round(seconds / (time.monotonic() - began), 2),
        "below": [process.describe() for process in below],
    }


def _state(before: str, after: str, below: list[FoundProcess]) -> str:
    if any(process.state in STOPPED for process in below):
        return "T"
    if after == "D" and before != "D":
        return "S"
    return after


def waits_in(pid: int) -> str:
    """A name for what the main thread waits in: the system call, else the kernel's function."""
    number = _text(pid, "syscall", 200).split(" ")[0]
    if number == "running":
        return "running"
    known = CALLS.get(os.uname().machine, {})
    call = parse_int(number)
    if call is not None and call in known:
        return known[call]
    channel = _text(pid, "wchan", 64)
    return "" if channel == "0" else channel


def process_environment(pid: int) -> dict[str, str]:
    """The environment that the process began with."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = file.read(MAX_ENVIRON_BYTES).decode(errors="replace").split("\0")
    except OSError:
        return {}
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def command_line(pid: int) -> list[str]:
    """The command line of the process."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(65536).decode(errors="replace").split("\0")
    except OSError:
        return []


def _ticks(pid: int) -> int:
    """Clock ticks that all threads of the process used so far."""
    fields = _text(pid, "stat", 4096).rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) if len(fields) > 12 else 0


def _threads(pid: int) -> int:
    fields = _text(pid, "stat", 4096).rpartition(")")[2].split()
    return int(fields[17]) if len(fields) > 17 else 0


def _text(pid: int, name: str, limit: int) -> str:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read(limit).decode(errors="replace").strip("\0\n ")
    except OSError:
        return ""
