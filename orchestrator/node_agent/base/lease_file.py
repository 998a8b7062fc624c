"""The coordinator's lease on an attempt, and the epoch that fences an older coordinator off.

Deadlines are on CLOCK_BOOTTIME: a change of the wall clock does not move them, nor does suspending
the machine stop them.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import contextmanager

from orchestrator.node_agent.base.agent_errors import BAD_REQUEST, FENCED, FOREIGN, AgentFault
from orchestrator.node_agent.base.node_layout import (
    ROOM_BYTES,
    AttemptLayout,
    RunLayout,
    lock_soon,
    write_atomically,
)
from orchestrator.node_agent.base.wire import read_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

MAX_LEASE_S = 366 * 86400.0
MAX_EPOCH = 1 << 53
TOKEN = re.compile(r"[A-Za-z0-9_-]{0,64}\Z")
LOCK_S = 10.0


def boot_seconds() -> float:
    """Seconds since boot, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def check_lease(request: Mapping[str, Any]) -> float | None:
    """Seconds; None: until the work is done, without news from any coordinator."""
    if "lease_s" in request and request["lease_s"] is None:
        return None
    return read_seconds(request, "lease_s", 0.1, MAX_LEASE_S)


class Claim:
    """Who asks: ``epoch`` orders the coordinators of one run, ``token`` tells runs apart whose ids
    people chose alike.
    """

    __slots__ = ("epoch", "token")

    def __init__(self, epoch: int, token: str) -> None:
        self.epoch = epoch
        self.token = token


def check_epoch(request: Mapping[str, Any]) -> Claim:
    value, token = request.get("epoch"), request.get("token", "")
    if type(value) is not int or not 0 <= value <= MAX_EPOCH:
        raise AgentFault(BAD_REQUEST, "'epoch' is not a whole number")
    if not isinstance(token, str) or not TOKEN.match(token):
        raise AgentFault(BAD_REQUEST, "'token' is not a short word")
    return Claim(value, token)


def fence_run(run: RunLayout, claim: Claim) -> None:
    """Take the run for ``claim``, under its lock.

    Raises FENCED if a newer epoch holds it, and FOREIGN if it is another run of the same name.
    """
    held, token = _read_claim(run)
    refuse_foreign(run, claim.token)
    if claim.epoch < held:
        message = f"epoch {held} holds this run; this request is of epoch {claim.epoch}"
        raise AgentFault(FENCED, message)
    if claim.epoch > held:
        text = f"{claim.epoch} {claim.token or token}"
        write_atomically(run.epoch, text.encode().ljust(ROOM_BYTES))


def refuse_foreign(run: RunLayout, token: str) -> None:
    """Raises FOREIGN if the run of this name here is another one. No token matches any."""
    known = _read_claim(run)[1]
    if known and token and known != token:
        raise AgentFault(FOREIGN, "a run of this name, from elsewhere, is known on this node")


def _read_claim(run: RunLayout) -> tuple[int, str]:
    try:
        with open(run.epoch) as file:
            epoch, _, token = file.read(256).partition(" ")
            return int(epoch), token.strip()
    except (OSError, ValueError):
        return -1, ""


@contextmanager
def run_lock(run: RunLayout, within_s: float = LOCK_S) -> Iterator[None]:
    """The run's lock, which a launch holds while it copies code. Raises BUSY after ``within_s``."""
    run.create()
    fd = lock_soon(run.lock, within_s)
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def claimed_run(run: RunLayout, claim: Claim, within_s: float = LOCK_S) -> Iterator[None]:
    """The run's lock, with the run taken for ``claim``.

    Raises BUSY after ``within_s``, FENCED if a newer epoch holds the run, and FOREIGN.
    """
    with run_lock(run, within_s):
        fence_run(run, claim)
        yield


def write_lease(attempt: AttemptLayout, claim: Claim, lease_s: float | None) -> None:
    """The attempt may go on for ``lease_s`` seconds from now; None: until it is done."""
    deadline = None if lease_s is None else boot_seconds() + lease_s
    text = json.dumps({"epoch": claim.epoch, "deadline": deadline})
    write_atomically(attempt.lease, text.encode().ljust(ROOM_BYTES))


class LeaseReader:
    """The supervisor's view of the lease; an unreadable file leaves the last deadline standing."""

    def __init__(self, attempt: AttemptLayout) -> None:
        self._path = attempt.lease
        self._seen: tuple[int, int] | None = None
        self.deadline = boot_seconds() + 60.0
        self.refresh()

    def refresh(self) -> None:
        try:
            status = os.stat(self._path)
            if self._seen == (status.st_ino, status.st_mtime_ns):
                return
            with open(self._path) as file:
                deadline = json.loads(file.read(4096))["deadline"]
            self.deadline = float("inf") if deadline is None else float(deadline)
            self._seen = (status.st_ino, status.st_mtime_ns)
        except (OSError, ValueError, KeyError, TypeError):
            return

    @property
    def expired(self) -> bool:
        self.refresh()
        return boot_seconds() >= self.deadline
