"""A schedule: one run a night, at a wall-clock time of a time zone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

WATCH_AFTER_S = 3600.0  # a night that has not begun by then is missing
# Entries wake at these steps: no zone lies less than a quarter of an hour from the host's.
WAKE_EVERY_MINUTES = 15
MAX_JITTER_S = 1800.0
DEFAULT_LIMIT_S = 12 * 3600.0
DEFAULT_CATCH_UP_S = 12 * 3600.0
DEFAULT_STATUS_EVERY_S = 30.0


class Overlap(StrEnum):
    """What becomes of a night that is due while the one before is still running."""

    SKIP = "skip"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """``workload`` or ``suite``: what runs, the other is empty; ``settings`` are the workload's.
    ``at``: five cron fields with one minute and one hour. ``since``: seconds since the epoch;
    nights before it are not missing. ``env_file``: a file of ``NAME=value`` lines, read at the
    start of each night, so that no secret stands in the schedule. ``status_file``: the status page,
    written again every ``status_every_s`` seconds while a night runs; empty = none.
    """

    name: str
    cluster: str
    workload: str = ""
    suite: str = ""
    at: str
    zone: str
    since: float
    settings: tuple[str, ...] = ()
    nodes: str = ""
    overlap: Overlap = Overlap.SKIP
    catch_up_s: float = DEFAULT_CATCH_UP_S
    jitter_s: float = 0.0
    limit_s: float = DEFAULT_LIMIT_S
    environment: Mapping[str, str] = field(default_factory=dict)
    env_file: str = ""
    status_file: str = ""
    status_every_s: float = DEFAULT_STATUS_EVERY_S
    folder: str = "/"

    @property
    def what(self) -> str:
        """What runs where, for people."""
        return f"{self.workload or f'suite {self.suite}'} on {self.cluster}"

    @property
    def minute(self) -> int:
        return int(self.at.split()[0])

    def jitter_of(self, night: str) -> float:
        """Seconds that ``night`` begins later, the same however often it is asked."""
        digest = hashlib.sha256(f"{self.name} {night}".encode()).digest()
        return self.jitter_s * int.from_bytes(digest[:4], "big") / 2**32


@dataclass(frozen=True, slots=True)
class DueNight:
    """``night``: its local date, ``2026-11-30``; ``due``: seconds since the epoch, with jitter."""

    night: str
    due: float


def wake_minutes(minute: int) -> tuple[int, ...]:
    """The minutes of every hour at which an entry wakes, so that one of them is the schedule's in
    any zone: offsets between zones are multiples of a quarter of an hour.
    """
    first = minute % WAKE_EVERY_MINUTES
    return tuple(range(first, 60, WAKE_EVERY_MINUTES))
