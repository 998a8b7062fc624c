"""Processes by identity (pid, start time), found by the run's marker or descent, never by name."""

from __future__ import annotations

import os
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MARKER = "ORCHESTRATE_ATTEMPT_DIR"
MAX_ENVIRON_BYTES = 8 * 1024 * 1024
SCAN_PAUSE_S = 0.02
DEAD_STATES = "ZX"
UNINTERRUPTIBLE = "D"
PROC = "/proc"


class FoundProcess:
    """A live process as /proc showed it. ``start_time`` counts clock ticks since boot."""

    __slots__ = ("comm", "parent", "pid", "start_time", "state")

    def __init__(self, pid: int, comm: str, state: str, parent: int, start_time: int) -> None:
        self.pid = pid
        self.comm = comm
        self.state = state
        self.parent = parent
        self.start_time = start_time

    def describe(self) -> dict[str, object]:
        """With what it waits for in the kernel, if not even KILL can end that wait."""
        told: dict[str, object] = {"pid": self.pid, "comm": self.comm, "state": self.state}
        if self.state == UNINTERRUPTIBLE:
            told["wchan"] = _wait_channel(self.pid)
        return told


def find_process(pid: int) -> FoundProcess | None:
    """The process ``pid``, or None if there is none."""
    try:
        with open(f"{PROC}/{pid}/stat", "rb") as file:
            text = file.read(4096).decode(errors="replace")
    except OSError:
        return None
    # The name is in parentheses and may itself hold parentheses and spaces.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    if len(fields) < 20:
        return None
    comm = "".join(c if c.isprintable() else "?" for c in head.partition("(")[2])
    return FoundProcess(pid, comm, fields[0], int(fields[1]), int(fields[19]))


def _wait_channel(pid: int) -> str:
    """The kernel function that it sleeps in; ``""`` where the kernel does not tell."""
    try:
        with open(f"{PROC}/{pid}/wchan") as file:
            return "".join(c for c in file.read(128) if c.isprintable())
    except (OSError, ValueError):
        return ""


def is_alive(pid: int, start_time: int) -> bool:
    """Whether exactly this process still runs."""
    found = find_process(pid)
    return found is not None and found.start_time == start_time and found.state not in DEAD_STATES


def send_signal(pid: int, start_time: int, number: int) -> bool:
    """Signal the process if it still is the same one; a reused pid is left alone."""
    try:
        fd = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    except OSError:
        fd = -1
    try:
        if not is_alive(pid, start_time):
            return False
        if fd >= 0:
            signal.pidfd_send_signal(fd, number)
        else:
            os.kill(pid, number)
    except OSError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True


def list_pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]


def marked_processes(share: str) -> list[FoundProcess]:
    """Live processes of this user whose environment names an attempt below ``share``.

    ``share`` is the directory of one inventory node's share of a run: unlike the run's id, which
    people may choose, it belongs to one run of one work directory.
    """
    wanted = f"{MARKER}={share}/".encode()
    return living_processes(
        pid for pid in list_pids() if any(e.startswith(wanted) for e in _environment(pid))
    )


def belongs_to_attempt(pid: int, attempt: str, supervisor: int) -> bool:
    """Whether the process carries the marker of the attempt's directory, or descends from its
    ``supervisor`` (0: it has none that lives).
    """
    if f"{MARKER}={attempt}".encode() in _environment(pid):
        return True
    return bool(supervisor) and any(found.pid == pid for found in list_descendants(supervisor))


def list_descendants(root: int) -> list[FoundProcess]:
    """Live processes below ``root``: under a subreaper also orphans without the marker."""
    table = [found for found in map(find_process, list_pids()) if found]
    children: dict[int, list[FoundProcess]] = {}
    for found in table:
        children.setdefault(found.parent, []).append(found)
    below: list[FoundProcess] = []
    queue = [root]
    while queue:
        for found in children.get(queue.pop(), ()):
            below.append(found)
            queue.append(found.pid)
    return [found for found in below if found.state not in DEAD_STATES]


def _environment(pid: int) -> set[bytes]:
    try:
        if os.stat(f"{PROC}/{pid}").st_uid != os.geteuid():
            return set()
        with open(f"{PROC}/{pid}/environ", "rb") as file:
            return set(file.read(MAX_ENVIRON_BYTES).split(b"\0"))
    except OSError:
        return set()


def living_processes(candidates: Iterable[int]) -> list[FoundProcess]:
    """Those that live, this process and its parent excepted."""
    ourselves = {os.getpid(), os.getppid()}
    found = (find_process(pid) for pid in candidates if pid not in ourselves)
    return [process for process in found if process and process.state not in DEAD_STATES]


class SweepResult:
    """What a sweep did. Clean means that two scans in a row found nothing."""

    def __init__(self) -> None:
        self.scans = 0
        self.killed: list[int] = []
        self.survivors: list[FoundProcess] = []

    @property
    def clean(self) -> bool:
        return not self.survivors


def unique_processes(*finds: list[FoundProcess]) -> list[FoundProcess]:
    """Each process once."""
    return list({found.pid: found for finding in finds for found in finding}.values())


def sweep_processes(
    find: Callable[[], list[FoundProcess]],
    timeout_s: float,
    kill_all: Callable[[], None] | None = None,
) -> SweepResult:
    """KILL what ``find`` finds until two scans in a row are empty, or the time is up.

    ``kill_all`` does so too, for what is started between looking and killing.
    """
    swept = SweepResult()
    empty = 0
    deadline = time.monotonic() + timeout_s
    while True:
        swept.survivors = find()
        swept.scans += 1
        empty = 0 if swept.survivors else empty + 1
        for process in swept.survivors:
            sent = send_signal(process.pid, process.start_time, signal.SIGKILL)
            if sent and process.pid not in swept.killed:
                swept.killed.append(process.pid)
        if swept.survivors and kill_all:
            kill_all()
        if empty == 2 or (swept.survivors and time.monotonic() >= deadline):
            return swept
        time.sleep(SCAN_PAUSE_S)
