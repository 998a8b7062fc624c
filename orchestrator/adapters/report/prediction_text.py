"""What was predicted, beside what was measured, for reports, plans and the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from orchestrator.core.base.figures import format_figure

if TYPE_CHECKING:
    from orchestrator.core.costs.job_prediction import JobPrediction
    from orchestrator.core.verdict.result import PredictedMetric

Row = tuple[str, str]


def prediction_rows(predictions: Iterable[PredictedMetric]) -> Iterator[Row]:
    """Of each figure the prediction with its interval, and the measured value if there is one."""
    for each in predictions:
        told = interval_text(each.predicted, each.low, each.high, each.unit)
        if each.measured is not None and each.error is not None:
            apart = f"{100 * each.error:+.1f} %"
            told += f"; measured {format_figure(each.measured, each.unit)}, error {apart}"
        if each.inside is False:
            told += f", OUTSIDE: {each.cause}"
        yield each.name, told


def planned_rows(prediction: JobPrediction) -> Iterator[Row]:
    """Of a plan, where nothing is measured yet."""
    for name, each in prediction.figures.items():
        yield name, interval_text(each.value, each.low, each.high, each.unit)


def interval_text(value: float, low: float, high: float, unit: str) -> str:
    """``17,710 tok/s (16,900 tok/s to 18,560 tok/s)``."""
    told, least, most = (format_figure(each, unit) for each in (value, low, high))
    return f"{told} ({least} to {most})"
