"""Runs as the history knows them, made up."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.adapters.history.stored_run import HistoryEntry
from orchestrator.core.base.errors import ExitCode
from orchestrator.core.history.run_record import ComparisonKey, RunFigure, RunRecord
from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.result import MetricResult, NodeResult, Result, Status

KEY = ComparisonKey(
    workload="finetune",
    workload_version="1",
    configuration="c0",
    gpus="8 x NVIDIA H200",
    nodes="gpu01",
    driver="580.1",
    torch="2.13.0",
)
UNITS = {
    "fp8": ("TFLOP/s", Direction.INFO),
    "fp16": ("TFLOP/s", Direction.INFO),
    "power": ("W", Direction.LOWER),
    "speed": ("tok/s", Direction.HIGHER),
    "step": ("s", Direction.LOWER),
}


def make_entry(
    run_id: str,
    finished: float = 1.0,
    *,
    key: ComparisonKey = KEY,
    status: Status = Status.SUCCEEDED,
    cluster: str = "c",
    **values: float | None,
) -> HistoryEntry:
    """A run with the figures of ``values``; what has no unit here is a plain number."""
    figures = {name: make_figure(name, value) for name, value in values.items()}
    record = RunRecord(
        run_id=run_id,
        started=finished - 1.0,
        finished=finished,
        cluster=cluster,
        workload=key.workload,
        status=status,
        code="d",
        key=key,
        figures=figures,
    )
    curves = {name: ((0, 1.0), (1, value)) for name, value in values.items() if value is not None}
    return HistoryEntry(record=record, result=_result(record), curves=curves)


def make_figure(name: str, value: float | None) -> RunFigure:
    unit, direction = UNITS.get(name, ("", Direction.INFO))
    return RunFigure(value=value, unit=unit, direction=direction)


def _result(record: RunRecord) -> Result:
    figures: Mapping[str, RunFigure] = record.figures
    return Result(
        run_id=record.run_id,
        status=record.status,
        exit_code=ExitCode.DONE,
        cluster=record.cluster,
        workload=record.workload,
        launcher="torchrun",
        world_size=8,
        nodes=(NodeResult(name="gpu01", state="used", ranks=8),),
        metrics={
            name: MetricResult(value=figure.value, unit=figure.unit, direction=figure.direction)
            for name, figure in figures.items()
        },
        timings={"watch": 1.0},
    )
