"""`loadtest.json`: every stage with its verdict, its percentiles and their certificates. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..base.stages import NodeLoad
from ..judge.evaluation import StageResult
from ..judge.summary import Spread

SCHEMA_VERSION = 1


def results_document(nodes: Sequence[NodeLoad], results: Sequence[StageResult]) -> dict[str, Any]:
    """Times in seconds. Of an invalid stage, latencies and what came of them are null; of
    one that was stopped they are of the part that was sent."""
    return {
        "schema_version": SCHEMA_VERSION,
        "complete": all(result.whole for result in results),
        "nodes": [
            {
                "node": load.node,
                "server": load.server,
                "model": load.model,
                "client_ceiling": load.ceiling,
                "warmup_requests": load.warmed_up,
            }
            for load in nodes
        ],
        "stages": [_stage(result) for result in results],
    }


def _stage(result: StageResult) -> dict[str, Any]:
    summary, rates = result.summary, result.summary.rates()
    return {
        "stage": result.stage,
        "valid": result.valid,
        "reasons": list(result.reasons),
        "configured_rate": result.rate,
        "concurrency": result.concurrency or None,
        "delivered_rate": result.delivered_rate,
        "schedule_s": result.schedule_s,
        "schedule_lag_p50": summary.lag(50),
        "schedule_lag_p99": summary.lag(99),
        "client_ceiling": result.ceiling,
        "requests": {
            "completed": summary.completed,
            "failed": summary.failed,
            "failures": dict(summary.failures.kinds),
            "good": summary.good,
        },
        "output_tokens": summary.output_tokens,
        "prompt_tokens": summary.prompt_tokens,
        "definitions": summary.definition.name,
        "requests_per_s": rates.requests if result.measured else None,
        "output_tokens_per_s": rates.output_tokens if result.measured else None,
        "goodput": rates.goodput if result.measured else None,
        "latencies": {s.name: _spread(s) for s in summary.spreads()} if result.measured else None,
    }


def _spread(spread: Spread) -> dict[str, Any]:
    return {
        "count": spread.count,
        "mean": spread.mean,
        "percentiles": {
            f"p{each.percent:g}": {
                "value": each.value,
                "certified": each.certified,
                "certificate_needs": each.needs,
            }
            for each in spread.percentiles
        },
    }
