"""What the model does while memory is watched: phases, in order, each a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import DynamicCache

from orchestrate_models.loading import random_prompts

from .settings import Settings

Phase = tuple[str, Callable[[], None]]
INFERENCE, TRAINING = ("prefill", "decode"), ("forward", "backward", "optimizer")


def phases_of(model: Any, settings: Settings, device: torch.device) -> Iterator[Phase]:
    """Those of the mode. What a phase leaves lives until the last one is over."""
    prompts = random_prompts(model.config.vocab_size, settings.batch, settings.tokens, device)
    if settings.mode == "training":
        yield from _training(model, prompts)
    else:
        yield from _inference(model, prompts, settings.new_tokens)


def _inference(model: Any, prompts: torch.Tensor, new_tokens: int) -> Iterator[Phase]:
    cache = DynamicCache(config=model.config)
    tokens = prompts

    @torch.no_grad()
    def step() -> None:
        nonlocal tokens
        answer = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        tokens = answer.logits[:, -1:].argmax(dim=-1)

    def decode() -> None:
        for _ in range(new_tokens - 1):
            step()

    yield "prefill", step
    yield "decode", decode


def _training(model: Any, prompts: torch.Tensor) -> Iterator[Phase]:
    """One step of AdamW on all weights."""
    optimizer = torch.optim.AdamW(model.parameters())
    losses: list[torch.Tensor] = []

    def forward() -> None:
        losses.append(model(input_ids=prompts, labels=prompts, use_cache=False).loss)

    def backward() -> None:
        losses.pop().backward()

    yield "forward", forward
    yield "backward", backward
    yield "optimizer", optimizer.step
