"""Processes named by pid and start time, so that a reused pid is never signalled."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


class VirtualHostsError(Exception):
    """What went wrong, where and what to do next; one readable message."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process; `started` is field 22 of /proc/PID/stat (clock ticks since boot)."""

    pid: int
    started: int


def identify(pid: int) -> Process | None:
    """The living process with this pid, or None when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else Process(pid, int(fields[19]))


def is_running(process: Process) -> bool:
    return identify(process.pid) == process


def send_signal(process: Process, number: signal.Signals) -> bool:
    """Signal exactly this process; False when it no longer exists."""
    descriptor = _open_pidfd(process)
    if descriptor is None:
        return False
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def kill_all(processes: Iterable[Process], *, seconds: float = 20.0) -> None:
    """SIGKILL every process and wait until it is dead (with all of its PID namespace, if any).

    Raises VirtualHostsError when one survives `seconds`.
    """
    deadline = time.monotonic() + seconds
    opened = {process: _open_pidfd(process) for process in processes}
    waiting = {process: fd for process, fd in opened.items() if fd is not None}
    try:
        for descriptor in waiting.values():
            _kill(descriptor)
        for process, descriptor in waiting.items():
            left_ms = max(0, int((deadline - time.monotonic()) * 1000))
            if not _wait_exit(descriptor, left_ms):
                raise VirtualHostsError(f"process {process.pid} survived SIGKILL for {seconds:g} s")
            _reap(process.pid)
    finally:
        for descriptor in waiting.values():
            os.close(descriptor)


def run_command(argv: Sequence[str], *, stdin: str = "", seconds: float = 30.0) -> str:
    """Run a tool to its end and return its stdout; VirtualHostsError carries its stderr."""
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
    except FileNotFoundError as error:
        raise VirtualHostsError(f"{argv[0]} is not installed ({error})") from error
    except subprocess.TimeoutExpired as error:
        raise VirtualHostsError(f"{argv[0]} did not finish in {seconds:g} s") from error
    if done.returncode != 0:
        message = done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}"
        raise VirtualHostsError(f"{' '.join(argv[:8])}: {message}")
    return done.stdout


def _open_pidfd(process: Process) -> int | None:
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if not is_running(process):
        os.close(descriptor)
        return None
    return descriptor


def _kill(descriptor: int) -> None:
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return


def _wait_exit(descriptor: int, milliseconds: int) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(milliseconds))


def _reap(pid: int) -> None:
    """Collect the exit status if the process was our child; otherwise its parent will."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
