"""The run as a report of llm-d-benchmark, schema 0.2.1: figures beside those of other tools. Pure.

https://github.com/llm-d/llm-d-benchmark, `br_v0_2_1_json_schema.json`. What it has no field for
(validity, certificates, lag, joules) is in `scenario.load.native.config`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..base.stages import NodeLoad, StageEnergy
from ..judge.evaluation import StageResult
from ..judge.summary import Spread
from ..load.settings import Settings

VERSION = "0.2.1"
LATENCIES = {
    "ttft": ("time_to_first_token", "s"),
    "ntpot": ("normalized_time_per_output_token", "s/token"),
    "tpot": ("time_per_output_token", "s/token"),
    "itl": ("inter_token_latency", "s/token"),
    "request_latency": ("request_latency", "s"),
}


def llmd_report(
    nodes: Sequence[NodeLoad], result: StageResult, settings: Settings
) -> dict[str, Any]:
    """The document. Of an invalid load it has requests and no latencies or rates."""
    return {
        "version": VERSION,
        "run": _run(result),
        "scenario": {
            "stack": [_component(load, settings) for load in nodes],
            "load": _load(nodes, result, settings),
        },
        "results": {
            "request_performance": {"aggregate": _aggregate(result)},
            "observability": {"components": list(_power(nodes, result.stage))},
        },
    }


def _run(result: StageResult) -> dict[str, Any]:
    end_s = result.wall + result.schedule_s
    run = os.environ.get("ORCHESTRATE_RUN_ID")
    return {
        "uid": run or f"loadtest-{result.wall:.0f}",
        "time": {
            "start": _time(result.wall),
            "end": _time(end_s),
            "duration": f"PT{result.schedule_s:.3f}S",
        },
        "description": "valid" if result.valid else f"invalid: {'; '.join(result.reasons)}",
    }


def _time(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat()


def _component(load: NodeLoad, settings: Settings) -> dict[str, Any]:
    config = {"server": load.server, "model": load.model, "arguments": settings.engine_arguments}
    return {
        "metadata": {"label": load.node, "cfg_id": _digest(config)},
        "standardized": {
            "kind": "generic",
            "tool": "endpoint" if settings.endpoint else settings.engine,
            "tool_version": "unknown",
        },
        "native": {"config": config},
    }


def _power(nodes: Sequence[NodeLoad], stage: int) -> Iterator[dict[str, Any]]:
    """Board power of each node's GPUs together, where it is known and valid."""
    for load, energy in _energies(nodes, stage):
        if energy.watts is not None:
            watts = {"units": "Watts", "mean": energy.watts, "max": energy.peak_watts}
            aggregate = {"power_consumption": watts}
            yield {"component_label": load.node, "aggregate": aggregate}


def _energies(nodes: Sequence[NodeLoad], stage: int) -> Iterator[tuple[NodeLoad, StageEnergy]]:
    for load in nodes:
        for each in load.stages:
            if each.stage == stage and each.energy is not None:
                yield load, each.energy


def _energy(nodes: Sequence[NodeLoad], result: StageResult) -> dict[str, Any] | None:
    """The report has a field for power alone: joules stand beside the load."""
    energies = [energy for _, energy in _energies(nodes, result.stage)]
    if not energies:
        return None
    valid = len(energies) == len(nodes) and all(each.watts is not None for each in energies)
    joules = sum(each.joules or 0.0 for each in energies) if valid else None
    summary = result.summary
    counts = {
        "request": summary.completed,
        "input_token": summary.prompt_tokens,
        "output_token": summary.output_tokens,
    }
    return {
        "source": "GPU board power (NVML), not wall power",
        "valid": valid,
        "reasons": [problem for each in energies for problem in each.problems],
        "gpus": sum(each.gpus for each in energies),
        "joules": joules,
        "joules_per": {name: joules / n for name, n in counts.items() if n and joules is not None},
    }


def _digest(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _load(nodes: Sequence[NodeLoad], result: StageResult, settings: Settings) -> dict[str, Any]:
    summary = result.summary
    requests = max(1, summary.completed)
    native = {
        "valid": result.valid,
        "reasons": list(result.reasons),
        "delivered_rate": result.delivered_rate,
        "schedule_lag_p99": summary.lag(99),
        "client_ceiling": result.ceiling,
        "definitions": settings.definitions,
        "certified": {
            f"{spread.name}_p{each.percent:g}": each.certified
            for spread in (summary.spreads() if result.valid else ())
            for each in spread.percentiles
            if each.needs is not None
        },
        "energy": _energy(nodes, result),
    }
    return {
        "metadata": {"cfg_id": _digest(dict(nodes[0].settings))},
        "standardized": {
            "tool": "orchestrate",
            "tool_version": "loadtest",
            "parallelism": settings.processes * len(nodes),
            "source": "sampled" if settings.prompts or settings.trace else "random",
            "stage": result.stage,
            "input_seq_len": _length(summary.prompt_tokens / requests),
            "output_seq_len": _length(summary.output_tokens / requests),
            "rate_qps": result.rate,
            "concurrency": result.concurrency or None,
        },
        "native": {"args": dict(nodes[0].settings), "config": native},
    }


def _length(mean: float) -> dict[str, Any]:
    return {"distribution": "other", "value": mean}


def _aggregate(result: StageResult) -> dict[str, Any]:
    summary = result.summary
    requests = {"requests": {"total": summary.total, "failures": summary.failed}}
    if not result.valid:
        return requests
    rates = summary.rates()
    spreads = {LATENCIES[spread.name]: spread for spread in summary.spreads()}
    return {
        **requests,
        "latency": {name: _statistics(spread, units) for (name, units), spread in spreads.items()},
        "throughput": {
            "request_rate": {"units": "queries/s", "mean": rates.requests},
            "output_token_rate": {"units": "tokens/s", "mean": rates.output_tokens},
            "input_token_rate": {
                "units": "tokens/s",
                "mean": rates.total_tokens - rates.output_tokens,
            },
            "total_token_rate": {"units": "tokens/s", "mean": rates.total_tokens},
        },
    }


def _statistics(spread: Spread, units: str) -> dict[str, Any]:
    found = {f"p{each.percent:g}".replace(".", "p"): each.value for each in spread.percentiles}
    return {"units": units, "mean": spread.mean, **found}
