"""The coordinator's lease on an attempt, and the epoch that fences an older coordinator off.

Deadlines are on CLOCK_BOOTTIME: a change of the wall clock does not move them, nor does suspending
the machine stop them.
"""

from __future__ import annotations

import json
import os
import time

from orchestrator.edges.agent.node.fault import BAD_REQUEST, FENCED, AgentFault
from orchestrator.edges.agent.node.layout import AttemptLayout, RunLayout, write_atomically

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAX_LEASE_S = 366 * 86400.0
MAX_EPOCH = 1 << 53


def now() -> float:
    """Seconds since boot, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def check_epoch(request: Mapping[str, Any]) -> int:
    value = request.get("epoch")
    if type(value) is not int or not 0 <= value <= MAX_EPOCH:
        raise AgentFault(BAD_REQUEST, "'epoch' is not a whole number")
    return value


def fence(run: RunLayout, epoch: int) -> None:
    """Take the run for ``epoch``, under its lock. Raises FENCED if a newer one holds it."""
    try:
        with open(run.epoch) as file:
            held = int(file.read(32))
    except (OSError, ValueError):
        held = -1
    if epoch < held:
        raise AgentFault(FENCED, f"epoch {held} holds this run; this request is of epoch {epoch}")
    if epoch > held:
        write_atomically(run.epoch, str(epoch).encode())


def write(attempt: AttemptLayout, epoch: int, lease_s: float) -> None:
    """The attempt may go on for ``lease_s`` seconds from now."""
    text = json.dumps({"epoch": epoch, "deadline": now() + lease_s})
    write_atomically(attempt.lease, text.encode())


class LeaseReader:
    """The supervisor's view of the lease; an unreadable file leaves the last deadline standing."""

    def __init__(self, attempt: AttemptLayout) -> None:
        self._path = attempt.lease
        self._seen: tuple[int, int] | None = None
        self.deadline = now() + 60.0
        self.refresh()

    def refresh(self) -> None:
        try:
            status = os.stat(self._path)
            if self._seen == (status.st_ino, status.st_mtime_ns):
                return
            with open(self._path) as file:
                self.deadline = float(json.loads(file.read(4096))["deadline"])
            self._seen = (status.st_ino, status.st_mtime_ns)
        except (OSError, ValueError, KeyError, TypeError):
            return

    @property
    def expired(self) -> bool:
        self.refresh()
        return now() >= self.deadline
