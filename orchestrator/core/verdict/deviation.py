"""Measured beside predicted: how far apart, and what probably made the difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.core.base.figures import format_figure
from orchestrator.core.costs.job_prediction import JobPrediction
from orchestrator.core.verdict.result import MetricResult, PredictedMetric

WAITED = 0.02  # part of a step that somebody waited, from which on it is worth a word
EXPLAINING = 1 / 3  # part of the difference that a cause has to make up for
COOL = 0.9  # of the predicted power, below which a GPU works less than it should
MEMORY = frozenset({"peak_memory_bytes", "peak_memory"})
LOWER_IS_BETTER = MEMORY | {"step_time_p50", "watts", "ttft_p50", "tpot_p50"}


def compare_prediction(
    prediction: JobPrediction, metrics: Mapping[str, MetricResult]
) -> Iterator[PredictedMetric]:
    """Every predicted figure, with the measured one where the run reported it."""
    for name, figure in prediction.figures.items():
        metric = metrics.get(name)
        measured = metric.value if metric is not None else None
        outside = measured is not None and not figure.low <= measured <= figure.high
        yield PredictedMetric(
            name=name,
            unit=figure.unit,
            predicted=figure.value,
            low=figure.low,
            high=figure.high,
            measured=measured,
            error=None if not measured else figure.value / measured - 1,
            inside=None if measured is None else not outside,
            cause=_cause(name, measured or 0.0, prediction, metrics) if outside else "",
        )


def findings(compared: tuple[PredictedMetric, ...]) -> Iterator[str]:
    """A line for each figure outside of its interval: by how much, and why."""
    for each in compared:
        if each.inside is False and each.measured:
            apart = each.measured / each.predicted - 1
            where = "above" if apart > 0 else "below"
            measured, low, high = (
                format_figure(value, each.unit) for value in (each.measured, each.low, each.high)
            )
            yield (
                f"{each.name}: {measured} is {100 * abs(apart):.0f} % {where} what the model of "
                f"this hardware predicts ({low} to {high}): {each.cause}"
            )


def _cause(
    name: str, measured: float, prediction: JobPrediction, metrics: Mapping[str, MetricResult]
) -> str:
    figure = prediction.figures[name]
    more = measured > figure.value
    if name in MEMORY:
        return _memory_cause(more=more)
    if more != (name in LOWER_IS_BETTER):
        return "better than every run that the model was fitted to; orchestrate model calibrate"
    lost = abs(measured / figure.value - 1)
    waits = {
        "data wait": _value(metrics, "data_wait"),
        "waiting for other ranks": _value(metrics, "communication_wait"),
    }
    cause, part = max(waits.items(), key=lambda item: item[1])
    if part >= max(WAITED, EXPLAINING * lost):
        return f"{cause}, {100 * part:.0f} % of a step"
    drawn, full = _value(metrics, "watts"), prediction.figures.get("watts")
    if drawn and full is not None and name != "watts" and drawn < COOL * full.value:
        return f"the GPUs draw {drawn:.0f} W instead of {full.value:.0f} W: clocks or throttling"
    return "no wait was reported: clocks, another program on the GPUs, or rows of other lengths"


def _memory_cause(*, more: bool) -> str:
    if more:
        return "evaluation, generation or another engine holds more than a training step"
    return "less is kept than the model counts: something is computed again"


def _value(metrics: Mapping[str, MetricResult], name: str) -> float:
    metric = metrics.get(name)
    return metric.value or 0.0 if metric is not None else 0.0
