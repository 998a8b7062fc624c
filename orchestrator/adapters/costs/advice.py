"""One workload on several clusters, by their inventories alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.adapters.costs.cost_files import CostFiles
from orchestrator.adapters.costs.predict_run import predict_plan
from orchestrator.core.base.errors import UsageError
from orchestrator.core.costs.job_prediction import JobPrediction
from orchestrator.core.model.inventory import Cluster
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import Job
from orchestrator.core.planning.planning import Refusal, assumed_finding, make_plan

MOST_CLUSTERS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAdvice:
    """What a job would take on a cluster; ``gpus``: how many of which kind."""

    cluster: str
    gpus: str
    prediction: JobPrediction


def compare_clusters(
    files: CostFiles,
    workload: str,
    model: str,
    names: Sequence[str],
    *,
    settings: Sequence[str] = (),
    node_gbit: float = 0.0,
) -> list[ClusterAdvice]:
    """The fastest first, those of which nothing is known last. ``node_gbit``: rate of each node's
    network. Raises :class:`UsageError` for names
    that lead nowhere, and a workload that does not say what a step of it is.
    """
    if not 0 < len(names) <= MOST_CLUSTERS:
        raise UsageError(f"{len(names)} clusters were named", id="usage.clusters")
    job = _job(files, workload, model, settings)
    found = [_advise(files, job, files.catalog.cluster(name), node_gbit) for name in names]
    return sorted(found, key=_seconds)


def _seconds(advice: ClusterAdvice) -> float:
    figure = advice.prediction.figures.get("training_s")
    return figure.value if figure else float("inf")


def _job(files: CostFiles, workload: str, model: str, settings: Sequence[str]) -> Job:
    """The workload with the preset of the model's name, if it has one, and with this model."""
    from orchestrator.parsing.inputs.workloads.jobs import make_job

    found = files.catalog.workload(workload)
    if found.training is None:
        raise UsageError(
            f"workload {found.name} does not say what a step of its training is",
            id="model.no-training",
            where=found.source,
            remedy="its workload.yaml needs a section training, as finetune has",
        )
    files.shape(files.tables(), model)
    given = {text.partition("=")[0] for text in settings}
    own = [f"preset={model}"] if model in found.presets and "preset" not in given else []
    if not own and found.training.model not in given:
        own.append(f"{found.training.model}={model}")
    return make_job(found, (*own, *settings))


def _advise(files: CostFiles, job: Job, cluster: Cluster, node_gbit: float) -> ClusterAdvice:
    request = RunRequest(run_id="advice", cluster=cluster, job=job)
    findings = {spec.name: assumed_finding(spec) for spec in cluster.workers}
    decided = make_plan(request, findings, {})
    counts: dict[str, int] = {}
    for spec in cluster.workers:
        kind = spec.gpus.type or "GPU of unknown kind"
        counts[kind] = counts.get(kind, 0) + (spec.gpus.count or 0)
    gpus = ", ".join(f"{count} x {kind}" for kind, count in counts.items())
    if isinstance(decided, Refusal):
        prediction = JobPrediction(figures={}, without=decided.problem.message)
    else:
        found = predict_plan(files, request, decided, {}, node_gbit)
        prediction = found or JobPrediction(figures={})
    return ClusterAdvice(cluster=cluster.name, gpus=gpus, prediction=prediction)
