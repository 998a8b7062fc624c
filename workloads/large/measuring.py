"""Prefill and decode of one batch, repeated; what they took, and what memory they needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, StaticCache

import orchestrate_kit as kit
from orchestrate_models.devices import synchronize
from orchestrate_models.loading import random_prompts
from orchestrate_models.ranks import Ranks
from orchestrate_models.repeats import Spread, spread

from .settings import Settings


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Tokens of one repeat in each phase, and the seconds of all repeats, for this rank's batch."""

    prefill_tokens: int
    decode_tokens: int
    prefill_seconds: list[float]
    decode_seconds: list[float]

    @property
    def prefill(self) -> Spread:
        """Tokens per second."""
        return spread([self.prefill_tokens / seconds for seconds in self.prefill_seconds])

    @property
    def decode(self) -> Spread:
        """Tokens per second."""
        return spread([self.decode_tokens / seconds for seconds in self.decode_seconds])


class Generation:
    """Greedy decoding of a fixed batch. Only the last position's logits are made, as servers do."""

    def __init__(self, model: Any, settings: Settings, device: torch.device) -> None:
        self._config = model.config
        self._compiled = settings.compile
        self._new_tokens = settings.new_tokens
        self._prompts = random_prompts(
            model.config.vocab_size, settings.batch, settings.prompt_tokens, device
        )
        # Without `fullgraph`: collectives of a divided model may end a graph.
        self._forward = torch.compile(model) if settings.compile else model

    def run(self) -> tuple[float, float]:
        """Seconds of the prefill with its first token, and of the decode steps behind it."""
        cache = self._new_cache()
        device = self._prompts.device
        synchronize(device)
        began = time.perf_counter()
        tokens = self._next_tokens(self._prompts, cache, 0)
        synchronize(device)
        first = time.perf_counter()
        for step in range(self._new_tokens - 1):
            tokens = self._next_tokens(tokens, cache, self._prompts.shape[1] + step)
        synchronize(device)
        return first - began, time.perf_counter() - first

    def _new_cache(self) -> Any:
        """Compiled code wants one of a fixed size."""
        if not self._compiled:
            return DynamicCache(config=self._config)
        longest = self._prompts.shape[1] + self._new_tokens
        return StaticCache(config=self._config, max_cache_len=longest)

    def _next_tokens(self, tokens: torch.Tensor, cache: Any, position: int) -> torch.Tensor:
        places = torch.arange(position, position + tokens.shape[1], device=tokens.device)
        answer = self._forward(
            input_ids=tokens,
            position_ids=places[None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        chosen: torch.Tensor = answer.logits[:, -1:].argmax(dim=-1)
        return chosen


@torch.inference_mode()
def measure(
    generation: Generation, settings: Settings, ranks: Ranks, report: Callable[[int], None]
) -> Passes:
    """Warm up, then repeat, all ranks together; ``report`` hears of each repeat."""
    for _ in range(settings.warmup):
        generation.run()
    if ranks.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(ranks.device)
    ranks.meet()
    with kit.measured_window(str(ranks.device)) as window:
        counted = window if ranks.counts(settings.tp) else None
        times = list(_repeats(generation, settings, report, counted))
        ranks.meet()
    prefill, decode = zip(*times, strict=True)
    return Passes(
        prefill_tokens=settings.batch * settings.prompt_tokens,
        decode_tokens=settings.batch * (settings.new_tokens - 1),
        prefill_seconds=list(prefill),
        decode_seconds=list(decode),
    )


@torch.inference_mode()
def repeat_for_profile(generation: Generation, ranks: Ranks) -> None:
    """Repeats that belong to no figure, for as long as a profile that the run asked for is taken.
    All ranks do as many: a model that they share needs all of them.
    """
    kit.mark_step()
    while any(ranks.gather(kit.profiling())):
        generation.run()
        kit.mark_step()


def _repeats(
    generation: Generation,
    settings: Settings,
    report: Callable[[int], None],
    window: kit.MeasuredWindow | None,
) -> Iterator[tuple[float, float]]:
    for repeat in range(settings.repeats):
        took = generation.run()
        if window is not None:
            window.count(
                requests=settings.batch,
                input_tokens=settings.batch * settings.prompt_tokens,
                output_tokens=settings.batch * settings.new_tokens,
            )
        report(repeat + 1)
        yield took
