"""Which process coordinates a run, and whether it still does.

A pid alone proves nothing: it is compared with the start time, the boot and the PID namespace it
belongs to.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from orchestrator.adapters.store.atomic_files import write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process on a machine.

    ``started`` is the kernel's start time, opaque, never reused together with the pid; ``boot``
    changes with every boot and tells PID namespaces apart; ``at`` is the wall clock in seconds when
    it was recorded.
    """

    pid: int
    started: str
    boot: str
    host: str
    at: float


class Liveness(StrEnum):
    """ELSEWHERE: another machine or container coordinates, so nothing can be said from here."""

    ALIVE = "alive"
    DEAD = "dead"
    ELSEWHERE = "elsewhere"


def identify_self(at: float) -> ProcessIdentity:
    """This process."""
    pid = os.getpid()
    started = _start_time(pid)
    return ProcessIdentity(
        pid=pid, started=started or "", boot=_boot(), host=platform.node(), at=at
    )


def write_identity(path: Path, identity: ProcessIdentity) -> None:
    write_json(path, asdict(identity))


def read_identity(path: Path) -> ProcessIdentity | None:
    """The recorded identity; None if there is none or it cannot be read."""
    try:
        return ProcessIdentity(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def liveness(identity: ProcessIdentity | None) -> Liveness:
    """Whether that very process still runs. No record counts as dead."""
    if identity is None:
        return Liveness.DEAD
    if identity.boot != _boot():
        # The same host name with another boot is a reboot; any other name is another machine.
        return Liveness.DEAD if identity.host == platform.node() else Liveness.ELSEWHERE
    return Liveness.ALIVE if _start_time(identity.pid) == identity.started else Liveness.DEAD


@contextlib.contextmanager
def signalling(identity: ProcessIdentity) -> Iterator[Callable[[int], bool]]:
    """A function that sends a signal to that very process and tells whether it was there.

    Where the kernel has process handles, a pid that is reused in between cannot be hit.
    """
    handle = _open_handle(identity.pid)
    alive = liveness(identity) is Liveness.ALIVE

    def send(number: int) -> bool:
        try:
            if not alive or liveness(identity) is not Liveness.ALIVE:
                return False
            if handle is not None:
                signal.pidfd_send_signal(handle, number)
            else:
                os.kill(identity.pid, number)
        except ProcessLookupError:
            return False
        return True

    try:
        yield send
    finally:
        if handle is not None:
            os.close(handle)


def _open_handle(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _start_time(pid: int) -> str | None:
    """None when no such process runs; a zombie has ended."""
    if not Path("/proc/self/stat").exists():
        return _ask("ps", "-o", "lstart=", "-p", str(pid)) or None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return None if fields[0] in "ZX" else fields[19]


@functools.cache
def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return _ask("sysctl", "-n", "kern.bootsessionuuid")


def _ask(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
