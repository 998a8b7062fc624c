#!/usr/bin/env python3
"""Speed and memory of a large dense model: prefill and decode apart.

    python run.py
    torchrun --nproc-per-node 4 run.py --shape gpt-40b --tp 0 --batch 4 --prompt-tokens 2048

All ranks divide one model by transformers' tensor-parallel plan, or each has a model of its own
(--tp 1) and figures are those of all together. Rank 0 writes large.json.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # a script: its folder is a package then, too, and the kit lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

import torch

import orchestrate_kit as kit
from orchestrate_models.devices import device_name, peak_bytes
from orchestrate_models.loading import (
    DTYPES,
    checked_tensor_parallel,
    load_model,
    model_options,
)
from orchestrate_models.memory_fit import GIB, inference_need, parameter_count, require_fit
from orchestrate_models.outputs import Figures, report_figures, write_document
from orchestrate_models.ranks import Ranks, run_on_ranks
from orchestrate_models.shapes import model_config

from .measuring import Generation, Passes, measure, repeat_for_profile
from .settings import Settings

RESULT = "large.json"


def run(settings: Settings, ranks: Ranks) -> None:
    """Load, measure, report. Raises ``UnusableSettings`` before anything is loaded."""
    config = model_config(settings.shape, settings.model)
    settings = replace(settings, tp=checked_tensor_parallel(settings.tp, ranks.size, config))
    need = inference_need(
        config,
        DTYPES[settings.precision],
        tensor_parallel=settings.tp,
        batch=settings.batch,
        tokens=settings.prompt_tokens + settings.new_tokens,
        logits=1,
    )
    require_fit(need, ranks.device, ranks.local_size)
    began = time.monotonic()
    options = model_options(settings, config, tensor_parallel=settings.tp)
    model = load_model(options, ranks)
    ranks.meet()
    loaded_s = time.monotonic() - began
    generation = Generation(model, settings, ranks.device)
    progress = partial(kit.progress, total=settings.repeats, unit="repeat")
    passes = measure(generation, settings, ranks, progress)
    found = ranks.gather((passes, peak_bytes(ranks.device)))
    if ranks.rank == 0:
        figures = combined_figures(found, settings) | {"load_s": (loaded_s, "s")}
        report_figures(figures)
        reckoned = {name: size / GIB for name, size in need.parts.items()}
        about = {
            "device": device_name(ranks.device),
            "ranks": ranks.size,
            "parameters": parameter_count(config),
            "reckoned_gib": reckoned,
        }
        write_result(settings, about, found, figures)
    repeat_for_profile(generation, ranks)


def combined_figures(found: list[tuple[Passes, int | None]], settings: Settings) -> Figures:
    """Of all ranks: a model that they share counts once, models of their own are added up."""
    own = [passes for passes, _ in (found if settings.tp == 1 else found[:1])]
    figures = {
        "prefill_tokens_per_s": (sum(each.prefill.median for each in own), "tok/s"),
        "decode_tokens_per_s": (sum(each.decode.median for each in own), "tok/s"),
        "prefill_spread": (max(each.prefill.relative for each in own), "of mean"),
        "decode_spread": (max(each.decode.relative for each in own), "of mean"),
    }
    peaks = [peak for _, peak in found if peak is not None]
    if peaks:
        figures["peak_memory"] = (max(peaks) / GIB, "GiB")
    return figures


def write_result(
    settings: Settings,
    about: dict[str, Any],
    found: list[tuple[Passes, int | None]],
    figures: Figures,
) -> None:
    """Settings, what it ran on, figures, and every repeat of every rank."""
    document = {
        "schema_version": 1,
        "settings": asdict(settings),
        "torch": torch.__version__,
        **about,
        "figures": {
            name: {"value": value, "unit": unit} for name, (value, unit) in figures.items()
        },
        "repeats": [asdict(passes) | {"peak_bytes": peak} for passes, peak in found],
    }
    write_document(RESULT, document)


def main() -> None:
    """Run as the command line says; settings that cannot be used here end with status 2."""
    settings = kit.parse(Settings)
    run_on_ranks("large", settings.device, partial(run, settings))


if __name__ == "__main__":
    main()
