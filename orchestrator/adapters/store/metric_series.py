"""Metric series: every value that a rank reported, one JSON line each, for charts."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from orchestrator.core.history.run_record import Curve
from orchestrator.core.run.kit_reports import Reported

MAX_POINTS = 2_000_000
_PORTION_BYTES = 1024 * 1024
_MAX_LINE_BYTES = 64 * 1024


_SHARED = tuple(field.name for field in fields(Reported) if field.name != "attempt")


@dataclass(frozen=True, slots=True)
class Point:
    """One value; ``step`` None = a final figure; ``t`` in seconds since the epoch.

    ``position`` is the byte after it in the rank's report file of ``attempt``.
    """

    node: str
    rank: int
    name: str
    value: float
    unit: str
    step: int | None
    t: float
    attempt: int = 1
    position: int = 0

    @classmethod
    def of(cls, event: Reported, *, attempt: int, t: float) -> Self:
        """``event`` of ``attempt`` as it was heard at ``t``."""
        return cls(**_shared(event), t=t, attempt=attempt)

    @property
    def event(self) -> Reported:
        """The event that the point was made of."""
        return Reported(**_shared(self))


def _shared(source: Reported | Point) -> dict[str, Any]:
    return {name: getattr(source, name) for name in _SHARED}


_NAMES = tuple(field.name for field in fields(Point))


class SeriesWriter:
    """Appends points to ``path``. They survive the death of this process, not a power cut.

    Opening removes a torn last line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._written = 0

    def append_many(self, points: Iterable[Point]) -> None:
        """One write for all. Raises ``OSError``; what was written of them is cut off again."""
        lines = [_encode(point) for point in points]
        lines = lines[: MAX_POINTS - self._written]
        if not lines:
            return
        if self._fd < 0:
            self._fd = _open_whole(self._path)
        end = os.fstat(self._fd).st_size
        try:
            rest = memoryview(b"".join(lines))
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            os.ftruncate(self._fd, end)
            raise
        self._written += len(lines)

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _encode(point: Point) -> bytes:
    record = {name: getattr(point, name) for name in _NAMES}
    return json.dumps(record).encode("ascii") + b"\n"


def _open_whole(path: Path) -> int:
    """A descriptor for appending to ``path``, without a torn last line."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    size = os.fstat(fd).st_size
    tail = os.pread(fd, _MAX_LINE_BYTES, max(0, size - _MAX_LINE_BYTES))
    os.ftruncate(fd, size - len(tail) + tail.rfind(b"\n") + 1)
    return fd


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
            attempt=int(data.get("attempt", 1)),
            position=int(data.get("position", 0)),
        )
    except (ValueError, TypeError, KeyError):
        return None
