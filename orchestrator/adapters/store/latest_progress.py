"""How far each rank of a live run is: one small file that is replaced, at most once a second.

Progress is not journaled, because only the latest counts; this is for readers in other processes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.core.run.events import Event, Progressed
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.result import Result

EVERY_S = 1.0
MAX_BYTES = 16 << 20  # ten thousand ranks have a few MB


@dataclass(frozen=True, slots=True, kw_only=True)
class RankProgress:
    """``at`` in seconds since the epoch; ``fields`` are what the rank shows beside it."""

    node: str
    rank: int
    done: float
    total: float
    unit: str
    at: float
    fields: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Between 0 and 1; 0 of an unknown total."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total > 0 else 0.0


class ProgressFile:
    """An observer that keeps the file. ``clock``: any monotonic one, in seconds. A disk that fails
    costs the file and not the run.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path, self._clock = path, clock
        self._latest: dict[tuple[str, int], RankProgress] = {}
        self._attempt = 1
        self._next = -math.inf
        self._written = True

    def on_event(self, at: float, event: Event, state: RunState) -> None:
        if state.attempt != self._attempt:
            self._attempt = state.attempt
            self._latest.clear()
        if isinstance(event, Progressed):
            self._latest[event.node, event.rank] = RankProgress(
                node=event.node,
                rank=event.rank,
                done=event.done,
                total=event.total,
                unit=event.unit,
                at=at,
                fields=event.fields,
            )
            self._written = False
            if self._clock() >= self._next:
                self._next = self._clock() + EVERY_S
                self.write()

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        del node, file, chunk

    def on_note(self, text: str) -> None:
        del text

    def close(self, result: Result | None) -> None:
        del result
        self.write()

    def write(self) -> None:
        """Replace the file by what is known, unless it says so already. Not synced: after a power
        cut there is no progress.
        """
        if self._written:
            return
        self._written = True
        ranks = [asdict(progress) for progress in self._latest.values()]
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps({"attempt": self._attempt, "ranks": ranks}), "ascii")
            temporary.chmod(0o600)
            temporary.replace(self._path)
        except OSError:
            temporary.unlink(missing_ok=True)


def read_progress(path: Path) -> tuple[RankProgress, ...]:
    """Of each rank that reported progress in the present attempt; empty where there is none, or
    where the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            data: Any = json.loads(file.read(MAX_BYTES))
        return tuple(RankProgress(**each) for each in data["ranks"])
    except (OSError, ValueError, TypeError, KeyError):
        return ()
