"""Predictions of a planned run, and where they are kept until it is over."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.adapters.store.atomic_files import write_json
from orchestrator.core.base.codec import CodecError, from_json, to_json
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.costs.job_prediction import JobPrediction, used_gpus

if TYPE_CHECKING:
    from orchestrator.adapters.costs.cost_files import CostFiles
    from orchestrator.adapters.store.layout import RunFolder
    from orchestrator.core.model.facts import Facts
    from orchestrator.core.model.plan import Plan
    from orchestrator.core.model.request import RunRequest
    from orchestrator.core.run.events import Event
    from orchestrator.core.run.state import RunState
    from orchestrator.core.verdict.result import MetricResult, Result

WATTS = "watts"  # a figure of a GPU, by its name in predictions


def predict_plan(
    files: CostFiles,
    request: RunRequest,
    plan: Plan,
    facts: Mapping[str, Facts],
    node_gbit: float = 0.0,
) -> JobPrediction | None:
    """What the run will take; None for workloads that declare nothing to predict. Never raises for
    what is not known: the prediction says why it has no figures. ``node_gbit``: rate of the network
    of nodes without facts.
    """
    workload = request.job.workload
    if not workload.is_predicted:
        return None
    try:
        used_gpus(plan, request.cluster, facts)  # without any, nothing more is imported or read
        if workload.inference is not None:
            from orchestrator.adapters.costs.predict_inference_run import predict_inference_run

            return predict_inference_run(files, request, workload.inference, plan, facts)
        assert workload.training is not None
        from orchestrator.adapters.costs.predict_training_run import predict_training_run

        training = workload.training
        return predict_training_run(files, request, training, plan, facts, node_gbit=node_gbit)
    except ValueError as error:  # what is not known, or not covered
        return JobPrediction(figures={}, without=str(error))
    except OrchestrateError as error:
        return JobPrediction(figures={}, without=error.what)


class PredictionWriter:
    """An observer that predicts a run when its plan is made, and says so once."""

    def __init__(self, files: CostFiles, folder: RunFolder, say: Callable[[str], None]) -> None:
        self._files, self._folder, self._say = files, folder, say
        self._done = False

    def on_event(self, at: float, event: Event, state: RunState) -> None:  # noqa: ARG002
        if self._done or state.plan is None:
            return
        self._done = True
        if self._folder.prediction.exists():  # of a coordinator before this one
            return
        facts = {name: node.facts for name, node in state.nodes.items() if node.facts is not None}
        found = predict_plan(self._files, state.request, state.plan, facts)
        if found is None:
            return
        try:
            write_json(self._folder.prediction, to_json(found))
        except OSError as error:
            self._say(f"the prediction is not kept: {error.strerror or error}")
        rate = found.figures.get("tokens_per_s")
        if rate is not None:
            self._say(f"predicted: {rate.value:,.0f} tok/s ({rate.low:,.0f} to {rate.high:,.0f})")

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        """Output of ranks predicts nothing."""

    def on_note(self, text: str) -> None:
        """Neither do notes."""

    def close(self, result: Result | None) -> None:
        """Nothing is held open."""


def with_prediction(result: Result, folder: RunFolder) -> Result:
    """``result`` with what was predicted beside its figures, and a warning for each outside."""
    from orchestrator.core.verdict.deviation import compare_prediction, findings

    try:
        found = from_json(JobPrediction, json.loads(folder.prediction.read_bytes()))
    except (OSError, ValueError, CodecError):
        return result
    assert isinstance(found, JobPrediction)
    compared = tuple(compare_prediction(found, _measured(result)))
    warnings = (*result.warnings, *findings(compared))
    return replace(result, predictions=compared, warnings=warnings)


def _measured(result: Result) -> Mapping[str, MetricResult]:
    """What was reported, and the mean power of a GPU where that was measured alone."""
    energy = result.energy
    if WATTS in result.metrics or energy is None or not energy.valid or not energy.gpus:
        return result.metrics
    assert energy.watts_mean is not None
    from orchestrator.core.verdict.result import MetricResult

    each = MetricResult(value=energy.watts_mean / energy.gpus, unit="W")
    return {**result.metrics, WATTS: each}
