"""How long each expert takes for the tokens that it got, asked apart from all others.

A grouped product computes all experts of a layer in one kernel, so nothing can be timed inside a
pass. After the passes, each layer's own expert module is called with as many rows as one expert had
in a pass, all of them for that expert: the library's code, whatever its layout. What that shows is
the expert alone, without what experts share in one kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .router_telemetry import RoutedLayer

REPEATS = 3
Latencies = list[list[float | None]]


def expert_modules(model: Any, layers: Sequence[RoutedLayer]) -> list[Any]:
    """The module beside each router that is called ``experts``; empty unless every layer has one
    of transformers' kind, which takes hidden states, chosen experts and weights.
    """
    found = [_beside(model, layer.name) for layer in layers]
    return found if all(hasattr(module, "down_proj") for module in found) else []


def _beside(model: Any, router: str) -> Any:
    return getattr(model.get_submodule(router.rpartition(".")[0]), "experts", None)


@torch.inference_mode()
def expert_latencies(
    modules: Sequence[Any],
    counts: Sequence[Sequence[int]],
    *,
    hidden_size: int,
    budget_s: float,
) -> Latencies:
    """Seconds by layer and expert, the best of ``REPEATS``; ``counts``: rows of each, by layer
    and expert. None for an expert without rows, and for all that are left when ``budget_s`` is
    spent. Experts are taken in turn over the layers, so that what is measured lies in all of them.
    """
    until = time.monotonic() + budget_s
    found: Latencies = [[None] * len(layer) for layer in counts]
    for expert in range(len(counts[0])):
        for place, module in enumerate(modules):
            rows = counts[place][expert]
            if rows and time.monotonic() < until:
                found[place][expert] = _seconds(module, expert, rows, hidden_size)
    return found


def _seconds(module: Any, expert: int, rows: int, hidden_size: int) -> float:
    weight = module.down_proj
    states = torch.randn(rows, hidden_size, device=weight.device, dtype=weight.dtype)
    chosen = torch.full((rows, 1), expert, device=weight.device)
    shares = torch.ones(rows, 1, device=weight.device, dtype=weight.dtype)
    timed = _timed_on_gpu if weight.is_cuda else _timed_here
    module(states, chosen, shares)  # the first call of a size chooses a kernel
    return min(timed(lambda: module(states, chosen, shares)) for _ in range(REPEATS))


def _timed_here(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _timed_on_gpu(act: Callable[[], object]) -> float:
    """By the device's clock; the wait before it keeps earlier work out, not launches."""
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    before.record()
    act()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after)) / 1000
