"""A finished run as the history knows it, and the key that says which runs are alike. Pure.

ComparisonKey   the conditions of a run: only runs with the same key are compared
RunRecord       one finished run: its key and its figures
FigureSeries    one figure over all runs of a key, oldest first
HistoryReader   what statistics over nights read; `adapters.history.store` implements it
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol

from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.result import Status

Curve = tuple[tuple[int, float], ...]  # (step, value) with ascending steps


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonKey:
    """The conditions under which a run's figures were measured; empty = unknown.

    ``gpus``: count and SKU over all nodes, ``16 x NVIDIA H200``; ``gpu_mode``: what else sets their
    speed (power limit, ECC, MIG); ``nodes``: names, folded; ``serials``: digest of the GPUs' UUIDs.
    ``workload_version``: what the workload declares, else the digest of its code; empty for a
    user's own code, whose changes are what is measured. ``configuration``: digest of parameters,
    arguments, environment, launcher, world size and the communication mode that was used.
    """

    workload: str
    workload_version: str = ""
    configuration: str = ""
    gpus: str = ""
    gpu_mode: str = ""
    nodes: str = ""
    serials: str = ""
    driver: str = ""
    cuda: str = ""
    nccl: str = ""
    torch: str = ""

    @property
    def digest(self) -> str:
        """Names the key in stores: equal for equal keys alone."""
        text = json.dumps(self.as_mapping(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def as_mapping(self) -> dict[str, str]:
        """Part of the key -> its value, in declared order."""
        return {part: getattr(self, part) for part in KEY_PARTS}


KEY_PARTS = tuple(part.name for part in fields(ComparisonKey))


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """A part of the key in which ``a`` and ``b`` differ."""

    part: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.part}: {self.a or 'unknown'} and {self.b or 'unknown'}"


def key_differences(a: ComparisonKey, b: ComparisonKey) -> tuple[KeyDifference, ...]:
    """The parts that differ; unknown beside known is a difference."""
    pairs = ((part, getattr(a, part), getattr(b, part)) for part in KEY_PARTS)
    return tuple(KeyDifference(*pair) for pair in pairs if pair[1] != pair[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigure:
    """A final figure. ``value`` None: the run did not report it, or what it reported is no finite
    number.
    """

    value: float | None
    unit: str = ""
    direction: Direction = Direction.INFO

    @property
    def measured(self) -> bool:
        """Whether there is a finite value."""
        return self.value is not None and math.isfinite(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A finished run. Times in seconds since the epoch; ``code`` is the digest of what travelled,
    ``commit`` the project's git commit where that is known.
    """

    run_id: str
    started: float
    finished: float
    cluster: str
    workload: str
    status: Status
    key: ComparisonKey
    preset: str | None = None
    code: str = ""
    commit: str = ""
    figures: Mapping[str, RunFigure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPoint:
    """One run of a series. ``value`` None: the run finished without this figure."""

    run_id: str
    finished: float
    value: float | None
    status: Status
    code: str = ""
    commit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureSeries:
    """One figure over the runs of one key, oldest first."""

    key: ComparisonKey
    metric: str
    unit: str
    direction: Direction
    points: tuple[SeriesPoint, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """The measured values of runs that succeeded."""
        return tuple(
            point.value
            for point in self.points
            if point.status is Status.SUCCEEDED and point.value is not None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunQuery:
    """Which runs: of one workload or cluster, with one metric, finished at or after ``since``
    (seconds since the epoch), with the key of ``key_digest``; the latest ``limit`` of them.
    """

    workload: str | None = None
    cluster: str | None = None
    metric: str | None = None
    since: float | None = None
    before: float | None = None
    key_digest: str | None = None
    limit: int = 100


class HistoryReader(Protocol):
    """What reads past runs. Everything raises ``OrchestrateError`` where the store cannot be read,
    and finds nothing where there is none yet.
    """

    def read_runs(self, query: RunQuery) -> tuple[RunRecord, ...]:
        """Matching runs with their figures, newest first."""
        ...

    def read_series(self, key: ComparisonKey, metric: str, limit: int) -> FigureSeries:
        """The latest ``limit`` runs with this key, oldest first. Without runs it has no points."""
        ...
