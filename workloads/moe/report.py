"""Figures of the routers, and the file that others read them from. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from .balance import Balance, balance

SCHEMA_VERSION = 1
Window = tuple[float, list[list[int]]]
Latencies = Sequence[Sequence[float | None]]


def summed_layers(windows: Sequence[Window]) -> list[list[int]]:
    """Counts by layer and expert over all windows."""
    layers = zip(*(counts for _, counts in windows), strict=True)
    return [[sum(expert) for expert in zip(*layer, strict=True)] for layer in layers]


def added_ranks(ranks: Sequence[Sequence[Window]]) -> list[Window]:
    """Windows of ranks that each have a model and a batch of their own, one by one: they route the
    same number of tokens, and a window ends when its last rank does.
    """
    return [
        (max(at for at, _ in together), summed_layers(together))
        for together in zip(*ranks, strict=True)
    ]


def wrong_counts(layers: Sequence[Sequence[int]], tokens: int, top_k: int) -> int:
    """By how much the counts of all layers miss ``tokens`` times ``top_k`` together."""
    return sum(abs(sum(counts) - tokens * top_k) for counts in layers)


def balance_figures(layers: Sequence[Sequence[int]]) -> dict[str, tuple[float, str]]:
    """The run's figures: of each the worst layer, so that no layer hides behind others."""
    found = [balance(counts) for counts in layers]
    return {
        "gini": (max(one.gini for one in found), ""),
        "max_over_mean": (max(one.max_over_mean for one in found), "x"),
        "load_cv": (max(one.cv for one in found), ""),
        "dead_experts": (sum(one.dead for one in found), "experts"),
        "utilisation": (min(one.utilisation for one in found), "of experts"),
        "effective_experts": (min(one.effective_experts for one in found), "experts"),
    }


def latency_figures(latencies: Latencies) -> dict[str, tuple[float, str]]:
    """Of all experts that were asked: the usual one and the slowest. Empty where none was."""
    known = [value for layer in latencies for value in layer if value is not None]
    if not known:
        return {}
    return {
        "expert_latency_p50": (median(known), "s"),
        "expert_latency_max": (max(known), "s"),
    }


def telemetry_document(
    names: Sequence[str],
    windows: Sequence[Window],
    *,
    top_k: int,
    tokens: int,
    cost: dict[str, float],
    latencies: Latencies = (),
) -> dict[str, Any]:
    """As docs/moe.md describes it. ``tokens`` of a window, which are the same in each."""
    layers = summed_layers(windows)
    measured: Sequence[dict[str, Any]] = [
        {"latency_s": _tenths_of_us(layer)} for layer in latencies
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "experts": len(layers[0]),
        "top_k": top_k,
        "tokens": tokens * len(windows),
        "cost": cost,
        "layers": [
            {"name": name, "counts": counts, **_rounded(balance(counts)), **more}
            for name, counts, more in zip(
                names, layers, measured or [{}] * len(layers), strict=True
            )
        ],
        "windows": [
            {
                "at_s": round(at, 6),
                "tokens": tokens,
                "layers": [_rounded(balance(counts)) for counts in by_layer],
            }
            for at, by_layer in windows
        ],
    }


def _tenths_of_us(layer: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 7) for value in layer]


def _rounded(one: Balance) -> dict[str, float]:
    return {name: round(value, 12) for name, value in asdict(one).items()}


def report_sections(document: dict[str, Any]) -> dict[str, Any]:
    """Gini over time for each layer, at most eight of them, and the load of the worst layer."""
    layers = document["layers"]
    worst = max(layers, key=lambda layer: layer["gini"])
    steps = max(1, (len(layers) + 7) // 8)
    series = [
        {
            "label": layer["name"],
            "points": [[w["at_s"], w["layers"][place]["gini"]] for w in document["windows"]],
        }
        for place, layer in list(enumerate(layers))[::steps]
    ]
    busiest = sorted(enumerate(worst["counts"]), key=lambda item: -item[1])[:16]
    bars = [{"label": f"expert {place}", "value": count} for place, count in busiest]
    return {
        "schema_version": 1,
        "sections": [
            {
                "kind": "lines",
                "title": "Gini coefficient of the experts' load",
                "x": {"label": "seconds"},
                "y": {"label": "Gini", "from_zero": True},
                "series": series,
            },
            {
                "kind": "bars",
                "title": f"Tokens of the busiest experts in {worst['name']}, the least even layer",
                "bars": bars,
                "unit": "tokens",
            },
        ],
    }
