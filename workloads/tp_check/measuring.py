"""The same prompts through the model in full precision, whole, and divided over all ranks."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any

import torch

import orchestrate_kit as kit
from orchestrate_models.loading import (
    ModelOptions,
    load_model,
    model_options,
    random_prompts,
)
from orchestrate_models.ranks import Ranks

from .settings import Settings

# The reference that both are compared with: rounding of the next wider type does not matter.
REFERENCE = {"fp32": "fp64", "bf16": "fp32", "fp16": "fp32"}
Logits = torch.Tensor


def measure(config: Any, settings: Settings, ranks: Ranks) -> tuple[Logits, Logits, Logits] | None:
    """Logits (positions, vocabulary) on the device: the reference's, the whole model's, the divided
    one's; None on other ranks than the first. Raises ``torch.OutOfMemoryError``.
    """
    found: list[Logits] = []
    steps = (
        (REFERENCE[settings.precision], 1),
        (settings.precision, 1),
        (settings.precision, ranks.size),
    )
    for done, (precision, size) in enumerate(steps, start=1):
        if size > 1 or ranks.rank == 0:
            options = model_options(
                settings,
                config,
                precision=precision,
                weights_in=settings.precision,
                tensor_parallel=size,
                smooth=settings.weights == "smooth",
            )
            found.append(_logits(options, settings, ranks))
        ranks.meet()
        kit.progress(done, len(steps), "model", precision=precision, tp=size)
    return _three(found) if ranks.rank == 0 else None


def _three(found: Sequence[Logits]) -> tuple[Logits, Logits, Logits]:
    reference, whole, divided = found
    return reference, whole, divided


@torch.inference_mode()
def _logits(options: ModelOptions, settings: Settings, ranks: Ranks) -> Logits:
    """The model is gone when this returns. One prompt at a time: the shapes of all products, and so
    their rounding, are the same whatever the number of prompts.
    """
    model = load_model(options, ranks)
    vocabulary = model.config.vocab_size
    prompts = random_prompts(vocabulary, settings.prompts, settings.tokens, ranks.device)
    rows = [model(input_ids=prompt[None], use_cache=False).logits[0] for prompt in prompts]
    del model
    gc.collect()
    if ranks.device.type == "cuda":
        torch.cuda.empty_cache()
    return torch.cat(rows)
