"""Metric series: every value that a rank reported, one JSON line each, for charts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from orchestrator.core.events import Event, Reported
from orchestrator.core.result import Result
from orchestrator.core.state import RunState

MAX_POINTS = 2_000_000
_PORTION_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Point:
    """One value; ``step`` None = a final figure; ``t`` in seconds since the epoch."""

    node: str
    rank: int
    name: str
    value: float
    unit: str
    step: int | None
    t: float


class SeriesWriter:
    """An observer that appends each reported metric to ``path``.

    The journal holds the same values durably: these lines are flushed, not synced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._written = 0

    def on_event(self, at: float, event: Event, state: RunState) -> None:
        del state
        if not isinstance(event, Reported) or self._written >= MAX_POINTS:
            return
        if self._file is None:
            self._file = self._path.open("a", encoding="ascii", buffering=1)
        point = Point(event.node, event.rank, event.name, event.value, event.unit, event.step, at)
        self._file.write(json.dumps(asdict(point)) + "\n")
        self._written += 1

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        """Logs are not metrics."""

    def on_note(self, text: str) -> None:
        """Notes are not metrics."""

    def close(self, result: Result | None) -> None:
        del result
        if self._file is not None:
            self._file.close()
            self._file = None


Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over steps, of one rank: (step, value) pairs with ascending steps."""

    name: str
    unit: str
    node: str
    rank: int
    points: Curve


class PointReader:
    """Reads points as the file grows; each ``read`` continues after the last complete line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Point]:
        """The readable points since the last call, in bounded portions: empty = nothing new.

        Lines that a crash tore are left out; a missing file is empty.
        """
        while lines := self._complete_lines():
            points = [point for line in lines if (point := _parse(line)) is not None]
            if points:
                return points
        return []

    def _complete_lines(self) -> list[bytes]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                portion = file.read(_PORTION_BYTES)
        except FileNotFoundError:
            return []
        complete = portion[: portion.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.splitlines()


def read_series(path: Path) -> tuple[Series, ...]:
    """Points with a step, by metric and rank. Of a repeated step the last counts."""
    found: dict[tuple[str, int], tuple[Point, dict[int, float]]] = {}
    reader = PointReader(path)
    while points := reader.read():
        for point in points:
            if point.step is not None and math.isfinite(point.value):
                _, values = found.setdefault((point.name, point.rank), (point, {}))
                values[point.step] = point.value
    return tuple(
        Series(name, first.unit, first.node, rank, tuple(sorted(values.items())))
        for (name, rank), (first, values) in sorted(found.items())
    )


def _parse(line: bytes) -> Point | None:
    try:
        data: Mapping[str, Any] = json.loads(line)
        step = data["step"]
        return Point(
            node=str(data["node"]),
            rank=int(data["rank"]),
            name=str(data["name"]),
            value=float(data["value"]),
            unit=str(data["unit"]),
            step=None if step is None else int(step),
            t=float(data["t"]),
        )
    except (ValueError, TypeError, KeyError):
        return None
