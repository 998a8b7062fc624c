"""Baselines as files: named copies of runs that move between homes and into version control."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.core.history.run_record import ComparisonKey, RunFigure, RunRecord
from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.result import Status
from orchestrator.parsing.inputs.validation import Strict, validate_document
from orchestrator.parsing.inputs.yaml_source import parse_yaml

MAX_RUNS = 200
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}"


class FigureEntry(Strict):
    """A final figure."""

    value: float | None
    unit: str = ""
    direction: Literal["lower", "higher", "info"] = "info"


class KeyEntry(Strict):
    """The conditions of a run."""

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


class RunEntry(Strict):
    """A run. Times in seconds since the epoch."""

    run_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    started: float
    finished: float
    cluster: str
    workload: str
    status: Literal["succeeded", "degraded", "failed", "stopped"]
    preset: str | None = None
    code: str = ""
    commit: str = ""
    key: KeyEntry
    figures: dict[str, FigureEntry]


class BaselineFile(Strict):
    """The whole file."""

    format: Literal["orchestrate-baseline-1"]
    name: str = Field(pattern=f"^{NAME_PATTERN}$")
    set_at: float
    runs: list[RunEntry] = Field(min_length=1, max_length=MAX_RUNS)


def load_baseline(data: bytes, source: str) -> tuple[str, float, tuple[RunRecord, ...]]:
    """(name, when it was set, runs). Raises :class:`UsageError` with file, line and nearest key."""
    file = validate_document(BaselineFile, parse_yaml(data, source))
    return file.name, file.set_at, tuple(map(_record, file.runs))


def _record(entry: RunEntry) -> RunRecord:
    figures = {
        name: RunFigure(value=item.value, unit=item.unit, direction=Direction(item.direction))
        for name, item in entry.figures.items()
    }
    return RunRecord(
        run_id=entry.run_id,
        started=entry.started,
        finished=entry.finished,
        cluster=entry.cluster,
        workload=entry.workload,
        status=Status(entry.status),
        preset=entry.preset,
        code=entry.code,
        commit=entry.commit,
        key=ComparisonKey(**entry.key.model_dump()),
        figures=figures,
    )
