"""Metrics of runs. A label ``run`` is a run that is under way or ended a short time ago."""

from __future__ import annotations

from orchestrator.core.monitoring.metric import MetricFamily, MetricKind

COUNTER = MetricKind.COUNTER
RUN = ("run",)
STATES = ("running", "unattended", "elsewhere", "succeeded", "degraded", "failed", "stopped")
RANK_STATES = ("running", "succeeded", "failed", "stopped")
NODE_STATES = ("waiting", "running", "ended", "failed", "lost")

RUNS = MetricFamily(
    name="orchestrate_runs", labels=("state",), help="Runs that this home knows, by state."
)
RUN_INFO = MetricFamily(
    name="orchestrate_run_info",
    labels=("run", "cluster", "workload", "launcher", "mode"),
    help="What a run is: 1. The mode is how its ranks communicate.",
)
RUN_STATE = MetricFamily(
    name="orchestrate_run_state",
    labels=("run", "state"),
    states=STATES,
    help="1 for the state that the run is in, 0 for the others.",
)
RUN_START = MetricFamily(
    name="orchestrate_run_start_timestamp_seconds", labels=RUN, help="When the run began."
)
RUN_LAST_EVENT = MetricFamily(
    name="orchestrate_run_last_event_timestamp_seconds",
    labels=RUN,
    help="When the coordinator last wrote an event or progress down.",
)
RUN_PROGRESS = MetricFamily(
    name="orchestrate_run_progress_ratio",
    labels=RUN,
    help="What is done of the whole; of ranks, the one that is furthest behind.",
)
RUN_LAST_PROGRESS = MetricFamily(
    name="orchestrate_run_progress_timestamp_seconds",
    labels=RUN,
    help="When a rank last reported progress or a figure.",
)
RUN_RETRIES = MetricFamily(
    name="orchestrate_run_retries_total",
    kind=COUNTER,
    labels=RUN,
    help="Attempts after the first one.",
)
RUN_FALLBACKS = MetricFamily(
    name="orchestrate_run_fallbacks_total",
    kind=COUNTER,
    labels=RUN,
    help="Communication modes that failed and were replaced by the next one.",
)
RUN_LINKS_BROKEN = MetricFamily(
    name="orchestrate_run_links_broken",
    labels=RUN,
    help="Links between nodes that were found broken in this run, in any attempt.",
)
RUN_STALLED = MetricFamily(
    name="orchestrate_run_stalled",
    labels=RUN,
    help="1 while ranks that make no progress are inspected, and after a hang was confirmed.",
)
RUN_RANKS = MetricFamily(
    name="orchestrate_run_ranks",
    labels=("run", "state"),
    help="Ranks of the present attempt by state; stopped: by the run itself.",
)
RUN_NODES = MetricFamily(
    name="orchestrate_run_nodes", labels=("run", "state"), help="Nodes of the run by state."
)
RUN_TOKENS = MetricFamily(
    name="orchestrate_run_tokens_per_second",
    labels=RUN,
    help="Tokens per second as the ranks last reported them, added up.",
)
RUN_STEP = MetricFamily(
    name="orchestrate_run_step_seconds",
    labels=RUN,
    help="Time of a step, from the figures that the lowest rank reported last.",
)
RUN_FIGURE = MetricFamily(
    name="orchestrate_run_figure",
    labels=("run", "figure", "unit"),
    help="A figure over steps that the lowest rank reported last, in its own unit.",
)
RUN_ENERGY = MetricFamily(
    name="orchestrate_run_gpu_energy_joules_total",
    kind=COUNTER,
    labels=RUN,
    help="Energy of the run's GPUs inside measured windows, by NVML.",
)
RUN_NVLINK = MetricFamily(
    name="orchestrate_run_nvlink_payload_bytes_total",
    kind=COUNTER,
    labels=RUN,
    help="Payload that GPUs sent over NVLink, of a run that ended and captured it.",
)
RUN_SAMPLES = MetricFamily(
    name="orchestrate_run_samples_total",
    kind=COUNTER,
    labels=("run", "outcome"),
    help="Samples of divided work that are settled: done, or failed.",
)
RUN_QUEUE = MetricFamily(
    name="orchestrate_run_samples_queued",
    labels=RUN,
    help="Samples of divided work that are not settled, leased ones included.",
)
RUN_LEASED = MetricFamily(
    name="orchestrate_run_samples_leased",
    labels=RUN,
    help="Samples of divided work that workers hold leases of.",
)
RUN_ROUNDS = MetricFamily(
    name="orchestrate_run_rounds_total",
    kind=COUNTER,
    labels=RUN,
    help="Rounds of a training without collectives between nodes.",
)
RUN_ROUND_BYTES = MetricFamily(
    name="orchestrate_run_round_bytes_total",
    kind=COUNTER,
    labels=RUN,
    help="Bytes that travelled over SSH for those rounds.",
)
RUN_BUSBW = MetricFamily(
    name="orchestrate_run_fabric_bus_bandwidth_bytes_per_second",
    labels=RUN,
    help="Bus bandwidth of the fabric probe before the launch, by nccl-tests' definition.",
)
RUN_BUSBW_FLOOR = MetricFamily(
    name="orchestrate_run_fabric_floor_bytes_per_second",
    labels=RUN,
    help="What that bandwidth is held against.",
)

RUN_METRICS = (
    RUNS,
    RUN_INFO,
    RUN_STATE,
    RUN_START,
    RUN_LAST_EVENT,
    RUN_PROGRESS,
    RUN_LAST_PROGRESS,
    RUN_RETRIES,
    RUN_FALLBACKS,
    RUN_LINKS_BROKEN,
    RUN_STALLED,
    RUN_RANKS,
    RUN_NODES,
    RUN_TOKENS,
    RUN_STEP,
    RUN_FIGURE,
    RUN_ENERGY,
    RUN_NVLINK,
    RUN_SAMPLES,
    RUN_QUEUE,
    RUN_LEASED,
    RUN_ROUNDS,
    RUN_ROUND_BYTES,
    RUN_BUSBW,
    RUN_BUSBW_FLOOR,
)
