"""Passes of one batch with telemetry and without, in turn, so that what it costs is seen."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

import orchestrate_kit as kit
from orchestrate_models.devices import synchronize
from orchestrate_models.loading import random_prompts
from orchestrate_models.ranks import Ranks
from orchestrate_models.repeats import Z

from .router_telemetry import RouterTelemetry
from .settings import Settings


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Seconds of each pass; the two lists are pairs, measured directly after each other."""

    tokens: int
    plain: list[float]
    watched: list[float]

    @property
    def tokens_per_s(self) -> float:
        """With telemetry, as one would run it."""
        return self.tokens / statistics.median(self.watched)

    @property
    def cost(self) -> Cost:
        return telemetry_cost(self.plain, self.watched)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Part of the time of a pass that telemetry takes, and the error of that figure (95 %)."""

    mean: float
    error: float


def telemetry_cost(plain: Sequence[float], watched: Sequence[float]) -> Cost:
    """From the ratios of pairs, of which the tenth at each end is left out: a pass that something
    else disturbed says nothing of telemetry. Raises ``ValueError`` for fewer than two pairs.
    """
    ratios = sorted(with_it / without for without, with_it in zip(plain, watched, strict=True))
    cut = len(ratios) // 10
    kept = ratios[cut : len(ratios) - cut]
    if len(kept) < 2:
        raise ValueError("the cost of telemetry needs two pairs of passes")
    error = Z * statistics.stdev(kept) / math.sqrt(len(kept))
    return Cost(mean=statistics.fmean(kept) - 1, error=error)


@torch.inference_mode()
def measure(
    model: Any,
    telemetry: RouterTelemetry,
    settings: Settings,
    ranks: Ranks,
    report: Callable[[int], None],
) -> Passes:
    """Pairs in the order on, off, off, on, so that a drift of the clocks cancels out."""
    vocabulary = model.config.vocab_size
    prompts = random_prompts(vocabulary, settings.batch, settings.tokens, ranks.device)
    began = time.monotonic()

    def seconds(*, watched: bool) -> float:
        with telemetry.watching() if watched else nullcontext():
            synchronize(ranks.device)
            start = time.perf_counter()
            model(input_ids=prompts, use_cache=False, logits_to_keep=1)
            if watched:
                telemetry.end_window(time.monotonic() - began)
            synchronize(ranks.device)
            return time.perf_counter() - start

    for _ in range(settings.warmup):
        seconds(watched=False)
    times: dict[bool, list[float]] = {True: [], False: []}
    counts = ranks.counts(settings.tp)
    ranks.meet()
    with kit.measured_window(str(ranks.device)) as window:
        for pair in range(settings.pairs):
            for watched in (pair % 2 == 0, pair % 2 == 1):
                times[watched].append(seconds(watched=watched))
                if counts:
                    window.count(requests=settings.batch, tokens=prompts.numel())
            report(pair + 1)
        ranks.meet()
    return Passes(tokens=prompts.numel(), plain=times[False], watched=times[True])
