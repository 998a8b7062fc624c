"""Metrics of inference: engines as they report themselves, latencies that clients measured, and
what an autoscaler needs.
"""

from __future__ import annotations

from orchestrator.core.monitoring.metric import MetricFamily, MetricKind

RUN = ("run",)
NODE = ("run", "node")
PAIR = ("cluster", "workload")
LATENCY_BOUNDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)
TOKEN_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0)

REQUEST_LATENCY = MetricFamily(
    name="orchestrate_request_latency_seconds",
    kind=MetricKind.HISTOGRAM,
    labels=RUN,
    bounds=LATENCY_BOUNDS,
    help="Latency of requests that succeeded, from the scheduled send to the last byte.",
)
FIRST_TOKEN = MetricFamily(
    name="orchestrate_request_first_token_seconds",
    kind=MetricKind.HISTOGRAM,
    labels=RUN,
    bounds=LATENCY_BOUNDS,
    help="Time to first token of the same requests, from the scheduled send.",
)
OUTPUT_TOKEN = MetricFamily(
    name="orchestrate_request_output_token_seconds",
    kind=MetricKind.HISTOGRAM,
    labels=RUN,
    bounds=TOKEN_BOUNDS,
    help="Time per output token after the first one, one value a request.",
)
REQUESTS_FAILED = MetricFamily(
    name="orchestrate_requests_failed_total",
    kind=MetricKind.COUNTER,
    labels=RUN,
    help="Requests that failed; they are in no latency.",
)
ENGINE_RUNNING = MetricFamily(
    name="orchestrate_engine_requests_running",
    labels=NODE,
    help="Requests that the node's engines work on.",
)
ENGINE_WAITING = MetricFamily(
    name="orchestrate_engine_requests_waiting",
    labels=NODE,
    help="Requests that wait in the node's engines.",
)
ENGINE_CACHE = MetricFamily(
    name="orchestrate_engine_cache_usage_ratio",
    labels=NODE,
    help="Used part of the KV cache of the node's fullest engine.",
)
SCALING_QUEUE = MetricFamily(
    name="orchestrate_scaling_queue_depth",
    labels=PAIR,
    help="Requests or samples that wait, in all live runs of the workload on the cluster.",
)
SCALING_BACKLOG = MetricFamily(
    name="orchestrate_scaling_token_backlog",
    labels=PAIR,
    help="Tokens that waiting requests will need, by what the finished ones needed.",
)
SCALING_LATENCY = MetricFamily(
    name="orchestrate_scaling_latency_p95_seconds",
    labels=PAIR,
    help="95th percentile of request latency, of the live run where it is worst.",
)
SCALING_SATURATION = MetricFamily(
    name="orchestrate_scaling_saturation_ratio",
    labels=PAIR,
    help="How full the engines are: KV cache in use, of the fullest engine; 1 = full.",
)

SERVING_METRICS = (
    REQUEST_LATENCY,
    FIRST_TOKEN,
    OUTPUT_TOKEN,
    REQUESTS_FAILED,
    ENGINE_RUNNING,
    ENGINE_WAITING,
    ENGINE_CACHE,
    SCALING_QUEUE,
    SCALING_BACKLOG,
    SCALING_LATENCY,
    SCALING_SATURATION,
)
