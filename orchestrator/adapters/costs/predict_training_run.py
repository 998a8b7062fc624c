"""The prediction of a planned training on GPUs, and the import of all that it is computed from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from orchestrator.adapters.costs.cost_files import CostFiles
from orchestrator.core.base.figures import sum_of_all
from orchestrator.core.costs.job_costs import (
    Price,
    either,
    planned_gpus,
    require_room,
    steps_of,
    text_cases,
    training_job,
    whole_run,
)
from orchestrator.core.costs.job_prediction import JobPrediction, NotPredicted
from orchestrator.core.costs.predict import predict_training
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import TrainingSource


def predict_training_run(
    files: CostFiles,
    request: RunRequest,
    source: TrainingSource,
    plan: Plan,
    facts: Mapping[str, Facts],
    *,
    node_gbit: float,
) -> JobPrediction:
    """What training as ``source`` says will take on the plan's GPUs. Raises ``ValueError`` and
    :class:`OrchestrateError` for what is not known, or not covered.
    """
    tables = files.tables()
    gpus = planned_gpus(plan, request.cluster, facts, tables, node_gbit)
    name = str(request.job.values[source.model])
    if not name:
        raise NotPredicted("the included model is too small for a GPU to be predicted")
    job = training_job(request.job, source, files.shape(tables, name), gpus.total)
    model = files.cost_model(tables, gpus.kind)
    cases = text_cases(request.job, source, job)
    found = reduce(either, [predict_training(each, gpus.fabric, model) for each in cases])
    require_room(found, tables.gpus[gpus.kind].device)
    prices = [request.cluster.node(share.name).price_per_hour for share in plan.nodes]
    hourly = sum_of_all(prices)
    price = None if hourly is None else Price(hourly, request.cluster.currency)
    return whole_run(found, steps_of(request.job, source), gpus.total, price)
