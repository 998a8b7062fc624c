"""A run's figures beside those of the runs of the same work before it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.core.history.run_record import RunRecord
from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.result import MetricResult, Result, Status

COMPARED_RUNS = 10  # the latest ones: what a cluster did months ago says little of today


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricComparison:
    """``change`` is relative to ``before``, the median of ``runs`` earlier values; None where that
    is 0. ``better`` None: nobody declared which direction is better, or it did not change.
    """

    name: str
    unit: str
    value: float
    before: float
    runs: int
    change: float | None
    better: bool | None


def compare_with_earlier(
    result: Result, earlier: Sequence[RunRecord]
) -> tuple[MetricComparison, ...]:
    """Each figure of ``result`` that runs of the same key before it reported, too. ``earlier``:
    newest first. Only runs that succeeded count: a figure of a degraded run says something else.
    """
    like = [
        run for run in earlier if run.status is Status.SUCCEEDED and run.run_id != result.run_id
    ]
    return tuple(_compared(result, like[:COMPARED_RUNS]))


def _compared(result: Result, earlier: Sequence[RunRecord]) -> Iterator[MetricComparison]:
    for name, metric in result.metrics.items():
        known = [run.figures[name] for run in earlier if name in run.figures]
        values = [f.value for f in known if f.unit == metric.unit and _is_figure(f.value)]
        if _is_figure(metric.value) and values:
            yield _comparison(name, metric, [value for value in values if value is not None])


def _is_figure(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _comparison(name: str, metric: MetricResult, values: Sequence[float]) -> MetricComparison:
    assert metric.value is not None
    before = median(values)
    return MetricComparison(
        name=name,
        unit=metric.unit,
        value=metric.value,
        before=before,
        runs=len(values),
        change=(metric.value - before) / abs(before) if before else None,
        better=_is_better(metric.value - before, metric.direction),
    )


def _is_better(difference: float, direction: Direction) -> bool | None:
    if direction is Direction.INFO or difference == 0:
        return None
    return (difference > 0) == (direction is Direction.HIGHER)
