"""How far each rank of a live run is: one small file that is replaced, at most once a second.

Progress is not journaled, because only the latest counts; this is for readers in other processes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.adapters.store.atomic_files import write_atomic
from orchestrator.core.run.events import Event
from orchestrator.core.run.kit_reports import Progressed
from orchestrator.core.run.node_telemetry import TelemetryRead
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
        self._latest: dict[tuple[str, int], RankProgress | str] = {}  # text: as it is written
        self._telemetry: dict[str, TelemetryRead] = {}
        self._attempt = 1
        self._next = -math.inf
        self._written = True

    def on_event(self, at: float, event: Event, state: RunState) -> None:
        if state.attempt != self._attempt:
            self._attempt = state.attempt
            self._latest.clear()
            self._telemetry.clear()
        if isinstance(event, TelemetryRead):
            self._telemetry[event.node] = event
            self._write_soon()
        elif isinstance(event, Progressed):
            self._latest[event.node, event.rank] = RankProgress(
                node=event.node,
                rank=event.rank,
                done=event.done,
                total=event.total,
                unit=event.unit,
                at=at,
                fields=event.fields,
            )
            self._write_soon()

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        del node, file, chunk

    def on_note(self, text: str) -> None:
        del text

    def close(self, result: Result | None) -> None:
        del result
        self.write()

    def _write_soon(self) -> None:
        self._written = False
        if self._clock() >= self._next:
            self._next = self._clock() + EVERY_S
            self.write()

    def write(self) -> None:
        """Replace the file by what is known, unless it says so already. Not synced: after a power
        cut there is no progress.
        """
        if self._written:
            return
        self._written = True
        for place, progress in self._latest.items():
            if isinstance(progress, RankProgress):
                self._latest[place] = json.dumps(asdict(progress))
        ranks = ", ".join(map(str, self._latest.values()))
        telemetry = json.dumps([asdict(read) for read in self._telemetry.values()])
        text = f'{{"attempt": {self._attempt}, "ranks": [{ranks}], "telemetry": {telemetry}}}'
        with suppress(OSError):
            write_atomic(self._path, text.encode("ascii"), durable=False)


class LiveState(NamedTuple):
    """What the file says: progress of each rank that reported any in the present attempt, and the
    newest readings of each node whose GPUs are sampled.
    """

    ranks: tuple[RankProgress, ...] = ()
    telemetry: tuple[TelemetryRead, ...] = ()


def read_progress(path: Path) -> tuple[RankProgress, ...]:
    """Of each rank; empty where there is no file, or where it cannot be read."""
    return read_live_state(path).ranks


def read_live_state(path: Path) -> LiveState:
    """Empty where there is no file, or where it cannot be read."""
    try:
        with path.open("rb") as file:
            data: Any = json.loads(file.read(MAX_BYTES))
        return LiveState(
            tuple(RankProgress(**each) for each in data["ranks"]),
            tuple(TelemetryRead(**each) for each in data.get("telemetry", ())),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return LiveState()
