"""What the rank shims left in ``ranks/``: which ranks began, and how they ended."""

from __future__ import annotations

import json
import os
import re
import signal

from orchestrator.node_agent.base.node_layout import AttemptLayout
from orchestrator.node_agent.process.eventlog import last_words
from orchestrator.node_agent.process.processes import is_alive
from orchestrator.node_agent.process.rank_shim import ENDING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

START = re.compile(r"(rank-\d{1,7}-\d{1,10})\.start\Z")
BROKEN = (AttributeError, KeyError, OSError, TypeError, ValueError)
GONE = {"signalled": int(signal.SIGKILL)}


class ShimmedRank:
    """One rank under a launcher, as its shim recorded it."""

    def __init__(self, key: str, start: dict[str, Any]) -> None:
        self.key = key
        self.rank = int(start["rank"])
        self.local_rank = int(start["local_rank"])
        self.pid = int(start["pid"])
        self.started_at = float(start["t"])
        self.shim = int(start["shim"])
        self.launcher = int(start["launcher"])
        self.start_time = int(start["start_time"])
        self._shim_start_time = int(start["shim_start_time"])
        self.outcome: dict[str, Any] | None = None
        self.ended_at: float | None = None
        self.told = False
        self.told_to_end = False

    @property
    def vanished(self) -> bool:
        """The shim is gone, and so is the rank: the kernel KILLs it when its shim dies."""
        if is_alive(self.shim, self._shim_start_time):
            return False
        return not is_alive(self.pid, self.start_time)

    def end(self, record: dict[str, Any], supervisor: int) -> None:
        ((kind, value),) = record["outcome"].items()
        if kind not in ("exited", "signalled"):
            raise ValueError("not an outcome")
        self.ended_at = float(record["t"])
        self.outcome = {kind: int(value)}
        by_launcher = record["told_by"] in (self.launcher, supervisor)
        self.told = record["told"] in ENDING
        self.told_to_end = by_launcher and self.told


class RankTable:
    """Reads the records; each beginning and each ending is told once."""

    def __init__(self, attempt: AttemptLayout) -> None:
        self._attempt = attempt
        self._known: dict[str, ShimmedRank] = {}
        self._unreadable: set[str] = set()
        self._supervisor = os.getpid()

    def begun(self) -> list[ShimmedRank]:
        """Ranks whose start was not told yet."""
        new = []
        for match in filter(None, map(START.match, self._names())):
            key = match.group(1)
            if key in self._known or key in self._unreadable:
                continue
            try:
                self._known[key] = ShimmedRank(key, self._read(match.group()))
            except BROKEN:  # the rank itself can write here; it must not bring us down
                self._unreadable.add(key)
                continue
            new.append(self._known[key])
        return new

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._attempt.ranks))
        except OSError:
            return []

    def ended(self) -> list[ShimmedRank]:
        """Ranks whose end was not told yet, the earliest first."""
        new = [rank for rank in self.pending() if self._settle(rank)]
        return sorted(new, key=lambda rank: rank.ended_at or 0.0)

    def _settle(self, rank: ShimmedRank) -> bool:
        vanished = rank.vanished  # looked at first: a shim records, then ends
        try:
            rank.end(self._read(rank.key + ".end"), self._supervisor)
        except FileNotFoundError:
            if not vanished:
                return False
            rank.outcome = GONE
        except BROKEN:
            rank.outcome = {"lost": "its record is unreadable"}
        return True

    def pending(self) -> list[ShimmedRank]:
        """Ranks of which no end was seen."""
        return [rank for rank in self._known.values() if rank.outcome is None]

    def _read(self, name: str) -> dict[str, Any]:
        with open(os.path.join(self._attempt.ranks, name)) as file:
            record = json.loads(file.read(4096))
        if not isinstance(record, dict):
            raise TypeError("not a record")
        return record

    def last_line(self, rank: ShimmedRank) -> str:
        stem = os.path.join(self._attempt.logs, f"rank-{rank.rank}")
        return last_words(stem + ".err", stem + ".out", rank.outcome or {})
