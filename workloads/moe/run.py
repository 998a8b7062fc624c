#!/usr/bin/env python3
"""Throughput of a mixture of experts, and how evenly its router uses them.

    python run.py
    python run.py --shape olmoe-7b --precision bf16 --batch 4 --tokens 2048

Each rank has a model of its own and its figures are added up, or all ranks divide one (--tp 0).
Rank 0 writes router_telemetry.json; docs/moe.md describes it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # a script: its folder is a package then, too, and the kit lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

import orchestrate_kit as kit
from orchestrate_models.devices import peak_bytes
from orchestrate_models.loading import (
    DTYPES,
    checked_tensor_parallel,
    load_model,
    model_options,
)
from orchestrate_models.memory_fit import GIB, inference_need, require_fit
from orchestrate_models.outputs import Figures, report_figures, write_document
from orchestrate_models.ranks import Ranks, run_on_ranks
from orchestrate_models.shapes import model_config
from orchestrate_models.unusable import UnusableSettings

from .expert_latency import Latencies, expert_latencies, expert_modules
from .measuring import Passes, measure
from .report import (
    Window,
    added_ranks,
    balance_figures,
    latency_figures,
    report_sections,
    summed_layers,
    telemetry_document,
    wrong_counts,
)
from .router_telemetry import RoutedLayer, RouterTelemetry, routed_layers
from .settings import Settings

TELEMETRY, SECTIONS = "router_telemetry.json", "report_sections.json"
LATENCY_S = 30.0  # for the experts one by one: thousands of them take seconds on a GPU
Found = tuple[Passes, list[Window]]


def run(settings: Settings, ranks: Ranks) -> None:
    """Load, measure, report. Raises ``UnusableSettings`` before anything is loaded."""
    config = model_config(settings.shape, settings.model)
    settings = replace(settings, tp=checked_tensor_parallel(settings.tp, ranks.size, config))
    need = inference_need(
        config,
        DTYPES[settings.precision],
        tensor_parallel=settings.tp,
        batch=settings.batch,
        tokens=settings.tokens,
        logits=1,
    )
    require_fit(need, ranks.device, ranks.local_size)
    options = model_options(settings, config, tensor_parallel=settings.tp, experts=settings.experts)
    model = load_model(options, ranks)
    layers = routed_layers(model)
    telemetry = RouterTelemetry(layers, _experts(config))
    progress = partial(kit.progress, total=settings.pairs, unit="pair")
    passes = measure(model, telemetry, settings, ranks, progress)
    peak = peak_bytes(ranks.device)
    windows = telemetry.windows()
    found = ranks.gather((passes, windows))
    if ranks.rank == 0:
        own = found if settings.tp == 1 else found[:1]
        latencies = _latencies(model, layers, windows) if settings.tp == 1 else []
        report(own, [layer.name for layer in layers], config.num_experts_per_tok, latencies)
        if peak is not None:
            kit.metric("peak_memory", peak / GIB, "GiB")
            kit.metric("telemetry_cost", passes.cost.mean, "of time")


def _experts(config: Any) -> int:
    """Raises :class:`UnusableSettings` for a dense model."""
    found = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    if not found:
        raise UnusableSettings(f"a {config.model_type} model has no experts")
    return int(found)


def _latencies(model: Any, layers: list[RoutedLayer], windows: list[Window]) -> Latencies:
    """Of rank 0's model, for the tokens of its first pass; empty where experts cannot be asked one
    by one. Divided experts are not: a rank has a part of each.
    """
    modules = expert_modules(model, layers)
    if not modules:
        return []
    _, counts = windows[0]
    hidden = model.config.hidden_size
    return expert_latencies(modules, counts, hidden_size=hidden, budget_s=LATENCY_S)


def report(found: list[Found], names: list[str], top_k: int, latencies: Latencies) -> None:
    """Figures and files of models of their own, together."""
    windows = added_ranks([own for _, own in found])
    tokens = sum(passes.tokens for passes, _ in found)
    layers = summed_layers(windows)
    figures: Figures = {
        "tokens_per_s": (sum(passes.tokens_per_s for passes, _ in found), "tok/s"),
        "wrong_counts": (wrong_counts(layers, tokens * len(windows), top_k), "tokens"),
        **balance_figures(layers),
        **latency_figures(latencies),
    }
    report_figures(figures)
    cost = found[0][0].cost
    print(f"telemetry: {100 * cost.mean:.2f} +- {100 * cost.error:.2f} % of a pass", flush=True)
    document = telemetry_document(
        names,
        windows,
        top_k=top_k,
        tokens=tokens,
        cost={"mean": cost.mean, "error": cost.error},
        latencies=latencies,
    )
    write_document(TELEMETRY, document)
    write_document(SECTIONS, report_sections(document))


def main() -> None:
    """Run as the command line says; settings that cannot be used here end with status 2."""
    settings = kit.parse(Settings)
    run_on_ranks("moe", settings.device, partial(run, settings))


if __name__ == "__main__":
    main()
