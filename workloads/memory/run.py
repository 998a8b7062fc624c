#!/usr/bin/env python3
"""What a model needs of memory over time, and what holds it.

    python run.py
    python run.py --shape qwen2-7b --precision bf16 --batch 4 --tokens 2048

Rank 0 writes memory.json, and on a GPU memory-snapshot.pickle, which
https://pytorch.org/memory_viz shows; other ranks do nothing.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # a script: its folder is a package then, too, and the kit lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

import torch

import orchestrate_kit as kit
from orchestrate_models.devices import device_name
from orchestrate_models.loading import DTYPES, load_model, model_options
from orchestrate_models.memory_fit import (
    GIB,
    MemoryNeed,
    inference_need,
    require_fit,
    training_need,
)
from orchestrate_models.outputs import Figures, report_figures, write_document
from orchestrate_models.ranks import Ranks, run_on_ranks
from orchestrate_models.shapes import model_config

from .phases import Phase, phases_of
from .settings import Settings
from .watching import Watched, watch_allocator, watch_tracker

RESULT, SNAPSHOT, SECTIONS = "memory.json", "memory-snapshot.pickle", "report_sections.json"
MAX_DRAWN = 2000


def run(settings: Settings, ranks: Ranks) -> None:
    """Load, watch, report. Raises ``UnusableSettings`` before anything is loaded."""
    config = model_config(settings.shape, settings.model)
    need = memory_need(config, settings)
    require_fit(need, ranks.device, ranks.local_size)
    model = load_model(model_options(settings, config), ranks)
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    # The tracker wants to hook every gradient; inference makes none all the same.
    model.requires_grad_(True).train(settings.mode == "training")
    watched = watch(model, settings, ranks.device)
    report(settings, ranks.device, need, weights, watched)


def memory_need(config: Any, settings: Settings) -> MemoryNeed:
    dtype = DTYPES[settings.precision]
    if settings.mode == "training":
        return training_need(config, dtype, batch=settings.batch, tokens=settings.tokens)
    return inference_need(
        config,
        dtype,
        tensor_parallel=1,
        batch=settings.batch,
        tokens=settings.tokens + settings.new_tokens,
        logits=1,
    )


def watch(model: Any, settings: Settings, device: torch.device) -> Watched:
    """The allocator's view where there is one, and what the tracker says of the holders."""

    def phases() -> Iterator[Phase]:
        return phases_of(model, settings, device)

    if device.type != "cuda":
        return watch_tracker(model, phases(), device)
    snapshot = kit.output_dir() / SNAPSHOT if settings.snapshot else None
    watched = watch_allocator(model, phases(), device, snapshot)
    model.zero_grad(set_to_none=True)
    gc.collect()
    torch.cuda.empty_cache()
    try:
        watched.holders = watch_tracker(model, phases(), device).holders
    except Exception as error:  # noqa: BLE001 - the allocator's figures are there all the same
        watched.holders_unknown = f"{type(error).__name__}: {error}"
        print(f"memory: what holds it is not known: {watched.holders_unknown}", flush=True)
    return watched


def report(
    settings: Settings, device: torch.device, need: MemoryNeed, weights: int, watched: Watched
) -> None:
    figures = figures_of(need, weights, watched)
    report_figures(figures)
    document = {
        "schema_version": 1,
        "settings": asdict(settings),
        "device": device_name(device),
        "torch": torch.__version__,
        "reckoned_bytes": dict(need.parts),
        "weights_bytes": weights,
        **asdict(watched),
    }
    write_document(RESULT, document)
    write_document(SECTIONS, report_sections(watched))
    if (snapshot := kit.output_dir() / SNAPSHOT).exists():
        kit.artifact(snapshot)


def figures_of(need: MemoryNeed, weights: int, watched: Watched) -> Figures:
    figures = {
        "peak_memory": (watched.peak / GIB, "GiB"),
        "weights_memory": (weights / GIB, "GiB"),
        "reckoned_over_peak": (need.total / watched.peak, "x"),
        **{f"peak_memory.{name}": (size / GIB, "GiB") for name, size in watched.peaks.items()},
    }
    if watched.reserved:
        figures["reserved_memory"] = (watched.reserved / GIB, "GiB")
    return figures


def report_sections(watched: Watched) -> dict[str, Any]:
    """Memory over time by phase, and what held it at the highest point."""
    step = max(1, len(watched.points) // MAX_DRAWN)
    series = [
        {
            "label": phase,
            "points": [[p.t, p.bytes] for p in watched.points[::step] if p.phase == phase],
        }
        for phase in watched.peaks
    ]
    bars = [{"label": name, "value": size} for name, size in watched.holders.items()]
    lines = {
        "kind": "lines",
        "title": "Memory that lives, at the end of each layer",
        "x": {"label": "seconds"},
        "y": {"label": "bytes", "unit": "bytes", "from_zero": True},
        "series": series,
    }
    held = {"kind": "bars", "title": "What held it at the peak", "bars": bars, "unit": "bytes"}
    return {"schema_version": 1, "sections": [lines, *([held] if bars else [])]}


def main() -> None:
    """Run as the command line says; settings that cannot be used here end with status 2."""
    settings = kit.parse(Settings)
    run_on_ranks("memory", settings.device, partial(run, settings))


if __name__ == "__main__":
    main()
