"""What is told to the run: acceptance.json, and the metrics that workload.yaml declares. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..judge import scaling
from ..judge.evidence import Evidence, training_rungs
from ..judge.figures import FAIL, INVALID, NOT_GATED, NOT_RUN, PASS, WARN, Figure
from ..judge.merging import merged_sweeps
from ..judge.odd import odd_ones

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
    "training_gpu": "training-gpu",
    "training_node": "training-node",
    "training_across": "training-all",
    "scaling_node": "scaling-node",
    "scaling_across": "scaling-all",
    "nodes_speed_up": "nodes-speed-up",
}


def metrics(figures: Sequence[Figure]) -> Iterator[tuple[str, float, str]]:
    """Name, value and unit of everything that rank 0 reports."""
    for name, verdict in COUNTS.items():
        yield name, sum(figure.verdict == verdict for figure in figures), "figures"
    yield "figures_missing", sum(figure.missing for figure in figures), "figures"
    checks = [figure for figure in figures if figure.unit == "wrong" and figure.value is not None]
    yield "wrong_results", sum(figure.value or 0.0 for figure in checks), "results"
    by_id = {figure.id: figure for figure in figures}
    for name, id in HEADLINES.items():
        figure = by_id.get(id)
        if figure is not None and figure.value is not None:
            yield name, figure.value, figure.unit


def result_object(
    evidence: Evidence,
    figures: Sequence[Figure],
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
        "figures": [figure.as_json() for figure in figures],
        "outliers": [odd.as_json() for odd in odd_ones(evidence)],
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
