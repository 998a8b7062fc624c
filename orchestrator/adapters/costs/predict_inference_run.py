"""The prediction of planned inference on GPUs, and the import of all that it is computed from."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.adapters.costs.cost_files import CostFiles
from orchestrator.core.costs.hardware import make_fabric
from orchestrator.core.costs.inference_prediction import predict_inference
from orchestrator.core.costs.inference_run import (
    answer_load,
    count_engines,
    engine_memory,
    inference_job,
    kept_job,
    load_of,
    model_name,
    planned_batches,
    planned_inference,
    planned_server,
)
from orchestrator.core.costs.job_costs import gpu_kind
from orchestrator.core.costs.job_prediction import JobPrediction
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import InferenceSource

EAGER = "eager"


def predict_inference_run(
    files: CostFiles,
    request: RunRequest,
    source: InferenceSource,
    plan: Plan,
    facts: Mapping[str, Facts],
) -> JobPrediction:
    """What inference as ``source`` says will take on the plan's GPUs. Raises ``ValueError`` and
    :class:`OrchestrateError` for what is not known, or not covered.
    """
    if source.program == EAGER:
        return _predict_eager_run(files, request, source, plan, facts)
    tables, job = files.tables(), request.job
    kind = gpu_kind(plan, request.cluster, facts, tables)
    name = model_name(job, source)
    one = inference_job(job, source, files.shape(tables, name))
    fabric = make_fabric(tables.gpus[kind], tables.links, 1)
    model = files.cost_model(tables, kind)
    if source.batches is not None:
        return planned_batches(job, source, one, fabric, model)
    load = load_of(job, source, count_engines(job, source, plan))
    if source.in_flight is None:
        return planned_server(source, load, one, fabric, model)
    alone = predict_inference(one, fabric, model)
    engine_memory(kept_job(job, source, one), fabric, model)
    answers = answer_load(one, load, fabric, model)
    memory = engine_memory(kept_job(job, source, answers.job), fabric, model)
    return planned_inference(source, load, alone, answers, memory)


def _predict_eager_run(
    files: CostFiles,
    request: RunRequest,
    source: InferenceSource,
    plan: Plan,
    facts: Mapping[str, Facts],
) -> JobPrediction:
    """Likewise of transformers' own forward pass, which may divide a model over all GPUs."""
    from orchestrator.core.costs.eager.eager_run import eager_job, planned_eager
    from orchestrator.core.costs.job_costs import planned_gpus

    tables = files.tables()
    name = model_name(request.job, source)
    one = inference_job(request.job, source, files.shape(tables, name))
    own = eager_job(one, request.job, source, plan.world_size)
    if own.tensor > 1:
        gpus = planned_gpus(plan, request.cluster, facts, tables)
        kind, fabric = gpus.kind, gpus.fabric
    else:  # models that never talk to each other
        kind = gpu_kind(plan, request.cluster, facts, tables)
        fabric = make_fabric(tables.gpus[kind], tables.links, 1)
    return planned_eager(own, source, fabric, files.cost_model(tables, kind))
