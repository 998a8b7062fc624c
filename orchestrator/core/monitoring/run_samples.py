"""What is known of runs, as samples. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.core.doctor.rules.gpus import HARMLESS, OF_PROGRAMS
from orchestrator.core.model.facts import Facts, Xid
from orchestrator.core.monitoring import node_metrics, run_metrics
from orchestrator.core.monitoring.metric import Metric, Sample
from orchestrator.core.monitoring.run_tally import NodeTally, RunTally

LIVE = frozenset({"running", "unattended", "elsewhere"})
# The names that probes give the driver's reasons. A power cap that software set is ordinary work.
HOT = frozenset({"hw_thermal", "sw_thermal"})
POWER = frozenset({"hw_slowdown", "hw_power_brake"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run at a moment. Times in seconds since the epoch. ``progress``: of the rank that is
    furthest behind, between 0 and 1. ``tokens`` maps nodes to tokens per second. ``figures`` maps
    names to (value, unit) of the lowest rank. ``mode``: how ranks communicate. ``engines`` maps
    nodes to what their inference engines report.
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
    tokens: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    engines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

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
        queued = divided.total - divided.done - divided.failed
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


def _known(run: str, values: Mapping[Metric, float | None]) -> Iterator[Sample]:
    return (metric.sample(value, run) for metric, value in values.items() if value is not None)


# ---- nodes -------------------------------------------------------------------------------------


def node_samples(run: RunView) -> Iterator[Sample]:
    """Every node of a run; of a run that ended only whether its nodes were well."""
    for name, node in run.tally.nodes.items():
        place = (run.run_id, name)
        yield node_metrics.NODE_UP.sample(node.state not in {"failed", "lost"}, *place)
        if node.joules is not None:
            yield node_metrics.NODE_ENERGY.sample(node.joules, *place)
        if run.is_live:
            yield from _live_node_samples(run, name, node)


def _live_node_samples(run: RunView, name: str, node: NodeTally) -> Iterator[Sample]:
    place = (run.run_id, name)
    yield node_metrics.NODE_RANKS.sample(node.running, *place)
    if name in run.tokens:
        yield node_metrics.NODE_TOKENS.sample(run.tokens[name], *place)
    if node.facts is not None:
        yield from _facts_samples(node.facts, place)


def _facts_samples(facts: Facts, place: tuple[str, str]) -> Iterator[Sample]:
    """What the node's last probe found."""
    yield node_metrics.NODE_GPUS.sample(len(facts.gpus), *place)
    yield node_metrics.NODE_CLOCK.sample(facts.clock_offset_s, *place)
    if facts.disk_free_bytes:
        yield node_metrics.NODE_DISK_FREE.sample(facts.disk_free_bytes, *place)
    if facts.xids is not None:
        yield node_metrics.NODE_XIDS.sample(_grave_errors(facts.xids), *place)
    if facts.gpus or facts.lost_gpus:
        yield node_metrics.NODE_GPUS_LOST.sample(len(facts.lost_gpus), *place)
    if facts.gpus:
        yield from _gpu_samples(facts, place)


def _grave_errors(xids: tuple[Xid, ...]) -> int:
    """How many that speak against the card, as doctor judges them."""
    return sum(x.count for x in xids if x.switch or x.code not in OF_PROGRAMS | HARMLESS)


def _gpu_samples(facts: Facts, place: tuple[str, str]) -> Iterator[Sample]:
    gpus = facts.gpus
    sums: Mapping[Metric, list[float | None]] = {
        node_metrics.NODE_POWER: [gpu.power_w for gpu in gpus],
        node_metrics.NODE_POWER_LIMIT: [gpu.power_limit_w for gpu in gpus],
        node_metrics.NODE_MEMORY: [gpu.memory_bytes for gpu in gpus],
        node_metrics.NODE_MEMORY_USED: [gpu.memory_used_bytes for gpu in gpus],
        node_metrics.NODE_ECC: [gpu.ecc.uncorrected for gpu in gpus],
    }
    for metric, values in sums.items():
        known = [value for value in values if value is not None]
        if known:
            yield metric.sample(sum(known), *place)
    hot = [gpu.temperature_c for gpu in gpus if gpu.temperature_c is not None]
    if hot:
        yield node_metrics.NODE_TEMPERATURE.sample(max(hot), *place)
    reasons = [frozenset(gpu.throttle) for gpu in gpus if gpu.throttle is not None]
    if reasons:
        for label, kinds in (("thermal", HOT), ("power", POWER)):
            held = sum(bool(kinds & reason) for reason in reasons)
            yield node_metrics.NODE_THROTTLED.sample(held, *place, label)
