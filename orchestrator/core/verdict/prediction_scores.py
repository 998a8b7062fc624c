"""How good predictions were, over runs that were measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.core.costs.fitting import mean_errors
from orchestrator.core.verdict.result import PredictedMetric


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionScore:
    """How good the predictions of one figure were, over ``runs``: mean absolute percentage error
    and bias as fractions, and the share that was inside of the 90 % interval.
    """

    name: str
    runs: int
    mape: float
    bias: float
    inside: float


def prediction_scores(compared: Iterable[PredictedMetric]) -> Iterator[PredictionScore]:
    """Of every figure that was predicted and measured."""
    errors: dict[str, list[tuple[float, bool]]] = {}
    for each in compared:
        if each.error is not None and each.inside is not None:
            errors.setdefault(each.name, []).append((each.error, each.inside))
    for name, found in errors.items():
        yield PredictionScore(name=name, runs=len(found), **mean_errors(found)._asdict())
