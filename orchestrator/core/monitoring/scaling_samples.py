"""Inference engines of live runs, and what an autoscaler needs of them. Pure.

The signals are those that autoscalers of inference settled on: what waits, the tokens that it will
need, latency, and how full the engines are. GPU utilisation is none: an engine that is used fully
may have no queue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from orchestrator.core.monitoring import serving_metrics as metrics
from orchestrator.core.monitoring.metric import MetricFamily, Sample
from orchestrator.core.monitoring.run_samples import RunView

# What the workload `serve` reports of the engines of a node, as series of its rank.
RUNNING, WAITING = "engine_requests_running", "engine_requests_waiting"
CACHE, LATENCY = "engine_cache_usage", "engine_latency_p95"
TOKENS = "engine_tokens_per_request"
ENGINE_FIGURES = frozenset({RUNNING, WAITING, CACHE, LATENCY, TOKENS})
_SHOWN: Mapping[str, MetricFamily] = {
    RUNNING: metrics.ENGINE_RUNNING,
    WAITING: metrics.ENGINE_WAITING,
    CACHE: metrics.ENGINE_CACHE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSignals:
    """Of all live runs of a workload on a cluster. None: nothing was reported."""

    queue: float | None
    backlog: float | None
    latency_p95: float | None
    saturation: float | None


def engine_samples(run: RunView) -> Iterator[Sample]:
    """What each node's engines report."""
    for node, figures in run.engines.items():
        for name, metric in _SHOWN.items():
            if name in figures:
                yield metric.sample(figures[name], run.run_id, node)


def scaling_samples(runs: Iterable[RunView]) -> Iterator[Sample]:
    """The signals of each pair of cluster and workload that has a live run."""
    pairs: dict[tuple[str, str], list[RunView]] = defaultdict(list)
    for run in runs:
        if run.is_live:
            pairs[run.cluster, run.workload].append(run)
    for pair, live in pairs.items():
        signals = scaling_signals(live)
        for metric, value in (
            (metrics.SCALING_QUEUE, signals.queue),
            (metrics.SCALING_BACKLOG, signals.backlog),
            (metrics.SCALING_LATENCY, signals.latency_p95),
            (metrics.SCALING_SATURATION, signals.saturation),
        ):
            if value is not None:
                yield metric.sample(value, *pair)


def scaling_signals(runs: Iterable[RunView]) -> ScalingSignals:
    """Waiting requests and unsettled samples add up; latency and saturation are those of the worst
    node. The backlog counts each waiting request as long as the node's finished ones were.
    """
    queues: list[float] = []
    nodes: list[Mapping[str, float]] = []
    for run in runs:
        nodes += run.engines.values()
        if run.tally.divided is not None:
            queues.append(run.tally.divided.total - run.tally.divided.settled)
    queues += [node[WAITING] for node in nodes if WAITING in node]
    backlogs = [n[WAITING] * n[TOKENS] for n in nodes if WAITING in n and TOKENS in n]
    return ScalingSignals(
        queue=sum(queues) if queues else None,
        backlog=sum(backlogs) if backlogs else None,
        latency_p95=max((n[LATENCY] for n in nodes if LATENCY in n), default=None),
        saturation=max((n[CACHE] for n in nodes if CACHE in n), default=None),
    )
