"""From a planned run to what it will take: the job's parameters, its GPUs, how they are joined."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from orchestrator.core.costs.estimate import Interval, product
from orchestrator.core.costs.hardware import FabricHardware, GpuHardware, make_fabric
from orchestrator.core.costs.job_prediction import (
    JobPrediction,
    NotPredicted,
    PredictedFigure,
    used_gpus,
)
from orchestrator.core.costs.model_shape import ModelShape
from orchestrator.core.costs.predict import Prediction
from orchestrator.core.costs.tables import CostTables
from orchestrator.core.costs.training_step import TrainingJob
from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.inventory import Cluster
from orchestrator.core.model.parameter_conflicts import condition_holds, condition_words
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.workload import Condition, Job, TrainingSource

EFFICIENT_TOKENS = 32_768  # of a micro-batch that the workload chooses (batch_size_search.py)
HOUR_S = 3600.0
NETWORKS = {CommMode.NCCL_IB: "infiniband", CommMode.NCCL_SOCKET: "ethernet"}


class Texts(NamedTuple):
    """Mean tokens of the texts in a row, and the share of them that are targets."""

    tokens: float
    targets: float


class PlannedGpus(NamedTuple):
    """The GPUs of a plan: the name of their file, how many, and how they are joined."""

    kind: str
    total: int
    fabric: FabricHardware


def planned_gpus(
    plan: Plan,
    cluster: Cluster,
    facts: Mapping[str, Facts],
    tables: CostTables,
    node_gbit: float = 0.0,
) -> PlannedGpus:
    """By what was probed, else by the inventory and ``node_gbit``, the rate of each node's network.
    Raises :class:`NotPredicted`.
    """
    kind = gpu_kind(plan, cluster, facts, tables)
    sizes = {len(share.ranks) for share in plan.nodes}
    if len(sizes) > 1:
        raise NotPredicted("the nodes have different numbers of ranks")
    network, rate = _network(plan, facts, node_gbit)
    return PlannedGpus(
        kind=kind,
        total=plan.world_size,
        fabric=make_fabric(tables.gpus[kind], tables.links, max(sizes), network, rate),
    )


def gpu_kind(plan: Plan, cluster: Cluster, facts: Mapping[str, Facts], tables: CostTables) -> str:
    """The name of the file of the plan's GPUs. Raises :class:`NotPredicted`."""
    names = used_gpus(plan, cluster, facts)
    kinds = {tables.gpu_called(name) for name in names}
    if len(kinds) > 1:
        raise NotPredicted(f"the GPUs are of different kinds: {', '.join(sorted(names))}")
    (kind,) = kinds
    if kind is None:
        raise NotPredicted(f"hardware/gpus has no file for {min(names)}")
    return kind


def _network(plan: Plan, facts: Mapping[str, Facts], node_gbit: float) -> tuple[str, float]:
    """What joins the nodes, and bytes/s of one rank's share of it."""
    if len(plan.nodes) == 1:
        return "", 0.0
    network = NETWORKS.get(CommMode(plan.rung))
    if network is None:
        raise NotPredicted(f"nodes that work apart ({plan.rung}) are not modelled")
    rates = [
        _node_gbit(facts[share.name], network) if share.name in facts else node_gbit
        for share in plan.nodes
    ]
    least = min(rates)
    if least <= 0:
        raise NotPredicted("the rate of the network between the nodes is not known")
    return network, least * 1e9 / 8 / len(plan.nodes[0].ranks)


def _node_gbit(facts: Facts, network: str) -> float:
    """Of all adapters, or of the fastest interface."""
    if network == "infiniband":
        return sum(hca.rate_gbit or 0.0 for hca in facts.hcas)
    speeds = [i.speed_mbit / 1e3 for i in facts.interfaces if i.up and not i.loopback]
    return max(speeds, default=0.0)


def training_job(job: Job, source: TrainingSource, shape: ModelShape, gpus: int) -> TrainingJob:
    """One step of ``gpus`` ranks. Raises :class:`NotPredicted` where it is another program than the
    one that was measured.
    """
    require_measured(job, source.only)
    sequence = _number(job, source.sequence)
    each, rows = _number(job, source.accumulation), job.values[source.rows]
    whole = _number(job, source.global_rows)
    own = math.ceil(whole / gpus) if whole else 0
    if isinstance(rows, str):  # as many as fit: what the workload takes for efficient
        rows = max(1, EFFICIENT_TOKENS // sequence)
    rows = min(int(rows), own) if own else int(rows)
    return TrainingJob(
        shape=shape,
        rows=rows,
        sequence=sequence,
        accumulation=math.ceil(own / rows) if own else each,
        gpus=gpus,
        rank=_number(job, source.adapter_rank),
    )


def text_cases(
    job: Job, source: TrainingSource, step: TrainingJob, known: Texts | None = None
) -> tuple[TrainingJob, ...]:
    """``step`` with the texts that its rows are made of: as ``known``, else as assumed. Where
    nothing is known of them there are two: as assumed, and rows that are one text, which take
    longest.
    """
    texts = source.texts
    if texts is None:
        return (step,)
    tokens, targets = known or Texts(texts.tokens, texts.targets)
    packed = step._replace(text=round(tokens), targets=targets)
    if known or all(condition_holds(each, job.values) for each in texts.only):
        return (packed,)
    return packed, step


def either(one: Prediction, other: Prediction) -> Prediction:
    """Of a job that is one of two: between both, as likely the one as the other."""
    figures = {
        name: Interval(
            value=math.sqrt(each.value * other.figures[name].value),
            low=min(each.low, other.figures[name].low),
            high=max(each.high, other.figures[name].high),
        )
        for name, each in one.figures.items()
    }
    return one._replace(figures=figures)


def require_measured(job: Job, only: Iterable[Condition]) -> None:
    """Raises :class:`NotPredicted` where the job is another program than the one that was
    measured.
    """
    unmet = [each for each in only if not condition_holds(each, job.values)]
    if unmet:
        wanted = condition_words(unmet, job.workload.parameters)
        raise NotPredicted(f"what was measured has {wanted}")


def _number(job: Job, name: str) -> int:
    value = job.values[name]
    if isinstance(value, str):
        raise NotPredicted(f"{name} is {value}")
    return int(value)


def require_room(prediction: Prediction, device: GpuHardware) -> None:
    """Raises :class:`NotPredicted` where a step does not fit into a GPU's memory as it is."""
    least = prediction.figures["peak_memory_bytes"].low
    if least > device.memory_bytes:
        raise NotPredicted(
            f"a step takes {least / 1e9:.0f} GB or more, and {device.name} has "
            f"{device.memory_bytes / 1e9:.0f} GB: lower micro_batch; recomputing to "
            "save memory is not modelled"
        )


class Price(NamedTuple):
    """Of an hour of all nodes."""

    per_hour: float
    currency: str


def whole_run(prediction: Prediction, steps: int, gpus: int, price: Price | None) -> JobPrediction:
    """A step's figures, and those of all ``steps``: their time, energy and cost."""
    figures = {
        name: planned_figure(interval, prediction.units[name])
        for name, interval in prediction.figures.items()
    }
    whole = prediction.figures["step_time_p50"].scaled(steps)
    figures["training_s"] = planned_figure(whole, "s")
    figures["energy"] = planned_figure(
        product(prediction.figures["watts"].scaled(gpus), whole), "J"
    )
    if price is not None:
        cost = whole.scaled(price.per_hour / HOUR_S)
        figures["cost"] = planned_figure(cost, price.currency)
    return JobPrediction(figures=figures, basis=prediction.basis)


def steps_of(job: Job, source: TrainingSource) -> int:
    """Of the whole training."""
    return _number(job, source.steps)


def planned_figure(interval: Interval, unit: str) -> PredictedFigure:
    """As a plan shows it."""
    return PredictedFigure(value=interval.value, low=interval.low, high=interval.high, unit=unit)
