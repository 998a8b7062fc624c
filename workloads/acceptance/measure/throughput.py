"""How fast a small model trains: on each GPU by itself, on each node, on all nodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..base.bandwidth import training_flops_per_token
from ..base.options import Options
from ..base.ranks import ALL, NODE, Group, Ranks
from ..base.robust_stats import median, percentile
from .small_model import ModelSize, SmallModel

GPU = "gpu"
BATCHES = 4
LEARNING_RATE = 3e-4
FEWEST_STEPS = 5


def measure(ranks: Ranks, options: Options, log: Callable[[str], None]) -> list[dict[str, Any]]:
    """One record of this rank for each configuration; every rank takes part in all of them."""
    found = []
    for scope in (GPU, NODE, ALL):
        group = ranks.group(scope)
        if scope == GPU or group:
            log(f"training, {scope}")
            found.append(_train(scope, group, ranks, options))
            if ranks.cuda:
                torch.cuda.empty_cache()
    return found


def _train(scope: str, group: Group | None, ranks: Ranks, options: Options) -> dict[str, Any]:
    size = ModelSize(
        width=options.train_width,
        layers=options.train_layers,
        length=options.train_length,
        vocabulary=options.train_vocabulary,
    )
    torch.manual_seed(options.seed)
    model = SmallModel(size).to(ranks.device)
    batches = _batches(size, ranks, options)
    repeated = _losses_twice(model, batches[0], ranks.device)
    trained: nn.Module = model
    if group and group.size > 1:
        ids = [ranks.device.index] if ranks.cuda else None
        trained = DistributedDataParallel(model, device_ids=ids, process_group=group.handle)
    if ranks.cuda:
        torch.cuda.reset_peak_memory_stats(ranks.device)
    losses, seconds = _steps(trained, batches, ranks, options)
    tokens = options.train_batch * options.train_length
    members = group.members if group else (ranks.rank,)
    return {
        "scope": scope,
        "members": list(members),
        "tokens_per_s": tokens / median(seconds),
        "step_p50": median(seconds),
        "step_p95": percentile(seconds, 95),
        "steps": len(seconds),
        "losses": [losses[0], losses[-1]],
        "repeats": repeated,
        "flops_per_token": training_flops_per_token(
            model.matrix_parameters(), size.layers, size.width, size.length
        ),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "peak_bytes": torch.cuda.max_memory_allocated(ranks.device) if ranks.cuda else 0,
    }


def _steps(
    model: nn.Module, batches: list[torch.Tensor], ranks: Ranks, options: Options
) -> tuple[list[float], list[float]]:
    """Losses of all steps, and seconds of those that count.

    Where the steps are slow, all ranks agree on fewer of them.
    """
    fused = ranks.cuda
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=fused)
    losses: list[torch.Tensor] = []

    def step() -> None:
        with torch.autocast(ranks.device.type, dtype=torch.bfloat16):
            loss = model(batches[len(losses) % len(batches)])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())

    def timed_step() -> float:
        began = time.perf_counter()
        step()
        if ranks.cuda:
            torch.cuda.synchronize(ranks.device)
        return time.perf_counter() - began

    ranks.meet()
    first = [timed_step() for _ in range(2)]
    affordable = int(options.train_budget_s / max(ranks.largest(first[-1]), 1e-6))
    wanted = options.warmup_steps + options.steps
    share = min(1.0, affordable / wanted)
    for _ in range(max(0, int(options.warmup_steps * share) - len(first))):
        step()
    ranks.meet()
    seconds = [timed_step() for _ in range(max(FEWEST_STEPS, int(options.steps * share)))]
    ranks.meet()
    return [float(loss.item()) for loss in losses], seconds


def _batches(size: ModelSize, ranks: Ranks, options: Options) -> list[torch.Tensor]:
    """Token numbers of which few are frequent, so that there is something to learn; random, and
    other ones on every rank.
    """
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + ranks.rank)
    shape = (options.train_batch, size.length + 1)
    return [
        (torch.rand(shape, generator=generator).pow(4) * size.vocabulary).long().to(ranks.device)
        for _ in range(BATCHES)
    ]


def _losses_twice(model: nn.Module, batch: torch.Tensor, device: torch.device) -> bool:
    """Whether the same forward pass gives the same bits twice."""
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
        first, second = (float(model(batch).item()) for _ in range(2))
    return first == second
