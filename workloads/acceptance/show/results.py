"""What the run is given: acceptance.json, and the metrics that workload.yaml declares. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..judge import scaling
from ..judge.evidence import Evidence, training_rungs
from ..judge.measurements import FAIL, INVALID, NOT_GATED, NOT_RUN, PASS, WARN, Measurement
from ..judge.outliers import find_outliers
from ..judge.sweeps import merged_sweeps

SCHEMA_VERSION = 1
COUNTS = {
    "figures_passed": PASS,
    "figures_warned": WARN,
    "figures_failed": FAIL,
    "figures_invalid": INVALID,
    "figures_not_gated": NOT_GATED,
    "figures_not_run": NOT_RUN,
}
# Metrics of the run -> the figures that they are.
HEADLINES = {
    "matmul_bf16": "matmul-bf16",
    "matmul_fp8": "matmul-fp8",
    "matmul_sustained": "matmul-sustained",
    "hbm_triad": "hbm-triad",
    "host_to_device": "host-to-device",
    "device_to_host": "device-to-host",
    "p2p": "p2p-copy-engine",
    "all_reduce": "all-reduce-node",
    "all_gather": "all-gather-node",
    "reduce_scatter": "reduce-scatter-node",
    "all_to_all": "all-to-all-node",
    "all_reduce_across": "all-reduce-all",
    "all_gather_across": "all-gather-all",
    "reduce_scatter_across": "reduce-scatter-all",
    "all_to_all_across": "all-to-all-all",
    "all_reduce_between": "all-reduce-rails",
    "kernel_launches": "launches",
    "communication_hidden": "overlap",
    "rank_lateness": "lateness",
    "training_gpu": "training-gpu",
    "training_node": "training-node",
    "training_across": "training-all",
    "scaling_node": "scaling-node",
    "scaling_across": "scaling-all",
    "nodes_speed_up": "nodes-speed-up",
}


def metrics(measurements: Sequence[Measurement]) -> Iterator[tuple[str, float, str]]:
    """Name, value and unit of everything that rank 0 reports."""
    for name, verdict in COUNTS.items():
        yield name, sum(one.verdict == verdict for one in measurements), "figures"
    yield "figures_missing", sum(one.missing for one in measurements), "figures"
    checks = [
        measurement
        for measurement in measurements
        if measurement.unit == "wrong" and measurement.value is not None
    ]
    yield "wrong_results", sum(one.value or 0.0 for one in checks), "results"
    by_id = {one.id: one for one in measurements}
    for name, id in HEADLINES.items():
        measurement = by_id.get(id)
        if measurement is not None and measurement.value is not None:
            yield name, measurement.value, measurement.unit


def result_object(
    evidence: Evidence,
    measurements: Sequence[Measurement],
    verdict: tuple[str, str],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """acceptance.json."""
    rungs = training_rungs(evidence)
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict[0],
        "summary": verdict[1],
        "loud": scaling.loud(rungs),
        "gpu": evidence.gpu,
        "nodes": evidence.nodes,
        "ranks": len(evidence.parts),
        "options": dict(options),
        "figures": [one.as_json() for one in measurements],
        "outliers": [outlier.as_json() for outlier in find_outliers(evidence)],
        "scaling": [
            {
                "name": rung.name,
                "scope": rung.scope,
                "ranks": rung.ranks,
                "nodes": rung.nodes,
                "tokens_per_s": rung.total,
                "tokens_per_s_per_rank": rung.per_gpu,
                "efficiency": rung.efficiency,
            }
            for rung in rungs
        ],
        "sweeps": merged_sweeps([part.get("collectives") or [] for part in evidence.parts]),
    }
