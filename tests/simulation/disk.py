"""What a simulated node has on its disk: it outlives agents, supervisors and reboots."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process that cannot be confused with a later one of the same pid."""

    pid: int
    start_time: int
    boot_id: str

    def told(self) -> dict[str, int]:
        return {"pid": self.pid, "start_time": self.start_time}


@dataclass(slots=True)
class Lease:
    """``deadline`` on the node's monotonic clock; None = until done."""

    epoch: int
    deadline: float | None


@dataclass(slots=True, eq=False)
class AttemptFiles:
    """The directory of one attempt. Files only grow."""

    run: str
    node: str
    number: int
    events: bytearray = field(default_factory=bytearray)
    records: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, bytearray] = field(default_factory=dict)
    reports: dict[str, bytearray] = field(default_factory=dict)
    outputs: dict[str, bytes] = field(default_factory=dict)
    lease: Lease | None = None
    stop_grace_s: float | None = None
    supervisor: ProcessIdentity | None = None
    watchers: list[Callable[[], None]] = field(default_factory=list)

    def append_record(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        self.events += json.dumps(record, separators=(",", ":")).encode() + b"\n"
        self.changed()

    def append_log(self, name: str, data: bytes) -> None:
        self.logs.setdefault(name, bytearray()).extend(data)
        self.changed()

    def append_report(self, name: str, record: dict[str, Any]) -> None:
        line = json.dumps(record).encode() + b"\n"
        self.reports.setdefault(name, bytearray()).extend(line)
        self.changed()

    def changed(self) -> None:
        for notify in self.watchers:
            notify()

    @property
    def concluded(self) -> bool:
        return bool(self.records) and self.records[-1]["event"] == "concluded"


@dataclass(slots=True, eq=False)
class RunShare:
    """One inventory node's share of a run. ``busy``: its lock is held."""

    run: str
    node: str
    epoch: int = -1
    busy: bool = False
    checkpoints: dict[int, int] = field(default_factory=dict)
    attempts: dict[int, AttemptFiles] = field(default_factory=dict)
    watched: dict[int, AttemptFiles] = field(default_factory=dict)

    def attempt(self, number: int) -> AttemptFiles:
        """The attempt's directory, made if it is not there."""
        if number not in self.attempts:
            self.attempts[number] = self.expected(number)
        return self.attempts[number]

    def expected(self, number: int) -> AttemptFiles:
        """What a watch looks at, which may begin before the directory is there."""
        if number in self.attempts:
            return self.attempts[number]
        return self.watched.setdefault(number, AttemptFiles(self.run, self.node, number))


@dataclass(slots=True)
class Disk:
    """``full``: every write is refused with ENOSPC."""

    shares: dict[tuple[str, str], RunShare] = field(default_factory=dict)
    snapshots: set[str] = field(default_factory=set)
    full: bool = False

    def write(self) -> None:
        """Call before something is written. Raises ``OSError``."""
        if self.full:
            raise OSError(28, "No space left on device")

    def share(self, run: str, node: str) -> RunShare:
        return self.shares.setdefault((run, node), RunShare(run, node))
