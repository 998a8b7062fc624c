#!/usr/bin/env python3
"""Whether a model that is divided over ranks says what the undivided one says.

    torchrun --nproc-per-node 2 run.py
    torchrun --nproc-per-node 4 run.py --shape qwen2-7b --precision bf16

The same prompts go through the whole model on rank 0 in the next wider type, which is the
reference, through it in --precision, and through the model divided over all ranks. Rank 0 writes
tp_check.json.
"""

from __future__ import annotations

import sys
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
from orchestrate_models.loading import DTYPES, checked_tensor_parallel
from orchestrate_models.memory_fit import inference_need, require_fit
from orchestrate_models.outputs import Figures, report_figures, write_document
from orchestrate_models.ranks import Ranks, run_on_ranks
from orchestrate_models.shapes import model_config
from orchestrate_models.unusable import UnusableSettings

from .agreement import Agreement, compare, tolerance
from .measuring import REFERENCE, measure
from .settings import Settings

RESULT = "tp_check.json"


def run(settings: Settings, ranks: Ranks) -> None:
    """Load, compare, report. Raises ``UnusableSettings`` before anything is loaded."""
    config = model_config(settings.shape, settings.model)
    if ranks.size < 2:
        raise UnusableSettings("one rank has nobody to divide the model with; start at least two")
    checked_tensor_parallel(0, ranks.size, config)
    need = inference_need(
        config,
        DTYPES[REFERENCE[settings.precision]],
        tensor_parallel=1,
        batch=1,
        tokens=settings.tokens,
        logits=settings.prompts * settings.tokens,
    )
    require_fit(need, ranks.device, ranks.local_size)
    found = measure(config, settings, ranks)
    if found is not None:
        reference, whole, divided = found
        own, divided_own = compare(reference, whole), compare(reference, divided)
        between = compare(whole, divided)
        allowed = tolerance(settings.precision, config.num_hidden_layers)
        report(settings, ranks, allowed, (between, own, divided_own))


def figures_of(allowed: float, between: Agreement, own: Agreement, divided: Agreement) -> Figures:
    """``own`` and ``divided``: the whole and the divided model beside the reference; ``allowed``:
    the relative error that rounding explains.
    """
    return {
        "relative_error": (between.relative_error, "of norm"),
        "tolerance_used": (between.relative_error / allowed, "of tolerance"),
        "error_ratio": (error_ratio(own, divided), "x"),
        "top1_agreement": (between.top1_agreement, "of positions"),
        "top1_wrong": (between.top1_wrong, "positions"),
        "kl": (between.kl, "nats"),
    }


def error_ratio(own: Agreement, divided: Agreement) -> float:
    """How much further from the reference the divided model is than the whole one; 1 if neither has
    an error.
    """
    if not own.relative_error:
        return float("inf") if divided.relative_error else 1.0
    return divided.relative_error / own.relative_error


def report(
    settings: Settings, ranks: Ranks, allowed: float, found: tuple[Agreement, Agreement, Agreement]
) -> None:
    """``found``: divided beside whole, then each of the two beside the reference."""
    between, own, divided = found
    report_figures(figures_of(allowed, between, own, divided))
    document: dict[str, Any] = {
        "schema_version": 1,
        "settings": asdict(settings),
        "device": device_name(ranks.device),
        "tensor_parallel": ranks.size,
        "torch": torch.__version__,
        "weights": settings.model or weights_text(settings.weights),
        "tolerance": allowed,
        "reference": REFERENCE[settings.precision],
        "whole_beside_reference": asdict(own),
        "divided_beside_reference": asdict(divided),
        "divided_beside_whole": asdict(between),
    }
    print(f"tp_check: weights: {document['weights']}", flush=True)
    write_document(RESULT, document)


def weights_text(kind: str) -> str:
    """What they are, for readers of a figure."""
    if kind == "random":
        return "random, as initialised: rounding grows from layer to layer"
    return "random and smoothed: embeddings of deviation 1, layers' outputs by sqrt(2 x layers)"


def main() -> None:
    """Run as the command line says; settings that cannot be used here end with status 2."""
    settings = kit.parse(Settings)
    run_on_ranks("tp_check", settings.device, partial(run, settings))


if __name__ == "__main__":
    main()
