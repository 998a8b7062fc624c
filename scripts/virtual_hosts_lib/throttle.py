"""Slow a host by stopping its processes for part of each period, where no CPU quota can be set.

Started as `python -m virtual_hosts_lib.throttle`; protocol (pipes.py): one line "PID FACTOR", where
PID is the host's pid 1, which is never stopped; answer "pid N"; then "keep".  Ends by itself when
the host does; whoever kills it continues the host's processes with `release`.
"""

from __future__ import annotations

import os
import signal
import time

from . import pipes

PERIOD_SECONDS = 0.1


def members(init_pid: int) -> list[int]:
    """Pids of the host's processes except its pid 1, as the machine sees them."""
    try:
        namespace = os.readlink(f"/proc/{init_pid}/ns/pid")
    except OSError:
        return []
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [pid for pid in pids if pid != init_pid and _namespace(pid) == namespace]


def send(init_pid: int, number: signal.Signals) -> None:
    """Signal every process of the host except pid 1."""
    for pid in members(init_pid):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def release(init_pid: int) -> None:
    send(init_pid, signal.SIGCONT)


def main() -> None:
    pid, factor = pipes.read_line().split()
    pipes.detach()
    pipes.await_word("keep")
    pipes.let_go()
    slow_down(int(pid), float(factor))


def slow_down(init_pid: int, factor: float) -> None:
    """Stop and continue the host's processes for as long as the host lives."""
    running = PERIOD_SECONDS / factor
    identity = _namespace(init_pid)
    while identity and _namespace(init_pid) == identity:
        send(init_pid, signal.SIGSTOP)
        time.sleep(PERIOD_SECONDS - running)
        send(init_pid, signal.SIGCONT)
        time.sleep(running)


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


if __name__ == "__main__":
    main()
