"""What is known of runs, as samples. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.core.monitoring import node_metrics, run_metrics
from orchestrator.core.monitoring.metric import MetricFamily, Sample, clean_label
from orchestrator.core.monitoring.node_figures import newest_figures
from orchestrator.core.monitoring.run_tally import RunTally
from orchestrator.core.run.node_telemetry import TelemetryRead

LIVE = frozenset({"running", "unattended", "elsewhere"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run at a moment. Times in seconds since the epoch. ``progress``: of the rank that is
    furthest behind, between 0 and 1. ``tokens`` maps nodes to tokens per second. ``figures`` maps
    names to (value, unit) of the lowest rank. ``mode``: how ranks communicate. ``engines`` maps
    nodes to what their inference engines report, ``telemetry`` to what their samplers read.
    """

    run_id: str
    state: str
    tally: RunTally
    cluster: str = ""
    workload: str = ""
    launcher: str = ""
    mode: str = ""
    started: float | None = None
    last_event: float | None = None
    last_progress: float | None = None
    progress: float | None = None
    step_s: float | None = None
    leased: float | None = None
    nvlink_bytes: float | None = None
    tokens: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    engines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    telemetry: Mapping[str, TelemetryRead] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        return self.state in LIVE


def run_samples(run: RunView) -> Iterator[Sample]:
    """A run without its nodes."""
    name, tally = run.run_id, run.tally
    labels = (run.cluster, run.workload, run.launcher, run.mode)
    yield run_metrics.RUN_INFO.sample(1, name, *labels)
    yield from run_metrics.RUN_STATE.state_samples(run.state, name)
    yield run_metrics.RUN_RETRIES.sample(tally.retries, name)
    yield run_metrics.RUN_FALLBACKS.sample(tally.fallen, name)
    yield run_metrics.RUN_LINKS_BROKEN.sample(len(tally.links), name)
    yield run_metrics.RUN_STALLED.sample(tally.stalled, name)
    ranks, nodes = tally.rank_states(), tally.node_states()
    for state in run_metrics.RANK_STATES:
        yield run_metrics.RUN_RANKS.sample(ranks[state], name, state)
    for state in run_metrics.NODE_STATES:
        yield run_metrics.RUN_NODES.sample(nodes[state], name, state)
    yield from _known(
        name,
        {
            run_metrics.RUN_START: run.started,
            run_metrics.RUN_LAST_EVENT: run.last_event,
            run_metrics.RUN_LAST_PROGRESS: run.last_progress,
            run_metrics.RUN_PROGRESS: run.progress,
            run_metrics.RUN_ENERGY: tally.joules,
            run_metrics.RUN_NVLINK: run.nvlink_bytes,
        },
    )
    yield from _live_samples(run) if run.is_live else ()
    yield from _work_samples(run)
    yield from _fabric_samples(name, tally)


def _live_samples(run: RunView) -> Iterator[Sample]:
    """What is true only while ranks run."""
    if run.tokens:
        yield run_metrics.RUN_TOKENS.sample(sum(run.tokens.values()), run.run_id)
    if run.step_s is not None:
        yield run_metrics.RUN_STEP.sample(run.step_s, run.run_id)
    for figure, (value, unit) in run.figures.items():
        yield run_metrics.RUN_FIGURE.sample(value, run.run_id, figure, unit)


def _work_samples(run: RunView) -> Iterator[Sample]:
    """Divided work, and rounds of a training."""
    name, divided, rounds = run.run_id, run.tally.divided, run.tally.rounds
    if divided is not None:
        yield run_metrics.RUN_SAMPLES.sample(divided.done, name, "done")
        yield run_metrics.RUN_SAMPLES.sample(divided.failed, name, "failed")
        queued = divided.total - divided.settled
        yield run_metrics.RUN_QUEUE.sample(queued if run.is_live else 0, name)
    if run.leased is not None and run.is_live:
        yield run_metrics.RUN_LEASED.sample(run.leased, name)
    if rounds:
        yield run_metrics.RUN_ROUNDS.sample(len(rounds), name)
        yield run_metrics.RUN_ROUND_BYTES.sample(sum(rounds.values()), name)


def _fabric_samples(name: str, tally: RunTally) -> Iterator[Sample]:
    if tally.fabric is None:
        return
    if tally.fabric.busbw_gbps is not None:
        yield run_metrics.RUN_BUSBW.sample(tally.fabric.busbw_gbps * 1e9, name)
    if tally.fabric.floor_gbps is not None:
        yield run_metrics.RUN_BUSBW_FLOOR.sample(tally.fabric.floor_gbps * 1e9, name)


def _known(run: str, values: Mapping[MetricFamily, float | None]) -> Iterator[Sample]:
    return (metric.sample(value, run) for metric, value in values.items() if value is not None)


# ---- nodes -------------------------------------------------------------------------------------


def node_samples(run: RunView) -> Iterator[Sample]:
    """Every node of a run; of a run that ended only whether its nodes were well.

    Thousands of series: labels are made harmless once a node, not once a sample.
    """
    run_id = clean_label(run.run_id)
    for name, node in run.tally.nodes.items():
        place = (run_id, clean_label(name))
        yield Sample(node_metrics.NODE_UP, place, node.state not in {"failed", "lost"})
        if node.joules is not None:
            yield Sample(node_metrics.NODE_ENERGY, place, node.joules)
        if run.is_live:
            yield Sample(node_metrics.NODE_RANKS, place, node.running)
            if name in run.tokens:
                yield Sample(node_metrics.NODE_TOKENS, place, run.tokens[name])
            for metric, labels, value in newest_figures(node.figures, run.telemetry.get(name)):
                yield Sample(metric, (*place, *labels), value)
