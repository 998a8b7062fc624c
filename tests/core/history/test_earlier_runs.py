"""A run's figures beside those of earlier runs: only of runs that are like it, by their median."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.core.base.errors import ExitCode
from orchestrator.core.history.earlier_runs import (
    COMPARED_RUNS,
    MetricComparison,
    compare_with_earlier,
)
from orchestrator.core.history.run_record import ComparisonKey, RunFigure, RunRecord
from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.result import MetricResult, Result, Status


def result(run: str, speed: float | None, **changes: object) -> Result:
    metric = MetricResult(value=speed, unit="tok/s", direction=Direction.HIGHER)
    made = Result(
        run_id=run,
        status=Status.SUCCEEDED,
        exit_code=ExitCode.DONE,
        cluster="c",
        workload="w",
        launcher="torchrun",
        world_size=2,
        metrics={"speed": metric},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def compare(now: Result, earlier: Sequence[Result]) -> tuple[MetricComparison, ...]:
    """With ``earlier`` as the history knows them."""
    return compare_with_earlier(now, [record(result) for result in earlier])


def record(result: Result) -> RunRecord:
    figures = {
        name: RunFigure(value=metric.value, unit=metric.unit, direction=metric.direction)
        for name, metric in result.metrics.items()
    }
    return RunRecord(
        run_id=result.run_id,
        started=0.0,
        finished=1.0,
        cluster=result.cluster,
        workload=result.workload,
        status=result.status,
        key=ComparisonKey(workload=result.workload),
        figures=figures,
    )


def test_the_median_of_earlier_runs_is_what_counts() -> None:
    earlier = [result(str(n), speed) for n, speed in enumerate([100.0, 90.0, 1000.0])]
    (found,) = compare(result("now", 120.0), earlier)
    assert (found.before, found.runs, found.better) == (100.0, 3, True)
    assert found.change is not None
    assert round(found.change, 9) == 0.2


def test_lower_is_better_where_the_workload_says_so() -> None:
    loss = MetricResult(value=0.5, unit="nats", direction=Direction.LOWER)
    before = result("a", 1.0, metrics={"loss": replace(loss, value=0.4)})
    (found,) = compare(result("now", 1.0, metrics={"loss": loss}), [before])
    assert found.better is False
    (same,) = compare(before, [replace(before, run_id="b")])
    assert same.better is None


def test_runs_that_are_not_like_it_do_not_count() -> None:
    others = [
        result("now", 5.0),
        result("degraded", 5.0, status=Status.DEGRADED),
        result("failed", 5.0, status=Status.FAILED),
        result("unreported", None),
        result("not-a-number", float("nan")),
        result("other-unit", 5.0, metrics={"speed": MetricResult(value=5.0, unit="rows/s")}),
    ]
    assert compare(result("now", 120.0), others) == ()


def test_only_the_latest_are_compared_with() -> None:
    earlier = [result(str(n), 100.0 if n < COMPARED_RUNS else 1.0) for n in range(50)]
    (found,) = compare(result("now", 100.0), earlier)
    assert (found.runs, found.before) == (COMPARED_RUNS, 100.0)


def test_a_median_of_nothing_gives_no_ratio() -> None:
    (found,) = compare(result("now", 1.0), [result("a", 0.0)])
    assert found.change is None
