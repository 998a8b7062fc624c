"""The last run of each workload and cluster, as samples. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from statistics import median

from orchestrator.core.history.run_record import RunFigure, RunRecord
from orchestrator.core.model.workload import Direction
from orchestrator.core.monitoring import kept_metrics as kept
from orchestrator.core.monitoring.catalogue import MAX_FIGURES
from orchestrator.core.monitoring.metric import Sample
from orchestrator.core.verdict.result import Status

MIN_EARLIER = 3  # runs that a trend needs


def last_run_samples(run: RunRecord) -> Iterator[Sample]:
    """How the last run of its workload on its cluster ended, and its figures."""
    pair = (run.cluster, run.workload)
    done = run.status in {Status.SUCCEEDED, Status.DEGRADED}
    yield kept.LAST_SUCCEEDED.sample(done, *pair)
    yield kept.LAST_DEGRADED.sample(run.status is Status.DEGRADED, *pair)
    yield kept.LAST_DURATION.sample(run.finished - run.started, *pair)
    yield kept.LAST_FINISHED.sample(run.finished, *pair)
    for name, figure in _measured(run):
        yield kept.LAST_FIGURE.sample(figure.value or 0.0, *pair, name, figure.unit)


def trend_samples(run: RunRecord, earlier: Sequence[RunRecord]) -> Iterator[Sample]:
    """Figures with a direction by the median of ``earlier`` successful runs like this one, so that
    less than 1 is worse; none where fewer than ``MIN_EARLIER`` have the figure.
    """
    alike = [each for each in earlier if each.status is Status.SUCCEEDED]
    for name, figure in _measured(run):
        before = [value for each in alike if (value := _value(each, name, figure.unit)) is not None]
        if len(before) < MIN_EARLIER:
            continue
        ratio = _ratio(figure, median(before))
        if ratio is not None:
            yield kept.LAST_TREND.sample(ratio, run.cluster, run.workload, name)


def _ratio(figure: RunFigure, before: float) -> float | None:
    value = figure.value or 0.0
    if value <= 0 or before <= 0 or figure.direction is Direction.INFO:
        return None
    return value / before if figure.direction is Direction.HIGHER else before / value


def _measured(run: RunRecord) -> Iterator[tuple[str, RunFigure]]:
    measured = ((name, figure) for name, figure in run.figures.items() if figure.measured)
    return islice(measured, MAX_FIGURES)


def _value(run: RunRecord, name: str, unit: str) -> float | None:
    figure = run.figures.get(name)
    return figure.value if figure is not None and figure.measured and figure.unit == unit else None
