"""How fast one thread launches kernels: slow CPUs and late interrupts show here first."""

from __future__ import annotations

import time
from typing import Any

import torch

from ..base.robust_stats import median

WARMUP, LAUNCHES, ROUNDS = 200, 1000, 20


def measure(device: torch.device) -> dict[str, Any]:
    """Thousand launches a second of an operation that takes the GPU no time, as torch makes them;
    the median round, and the slowest one, which tells of a thread that was taken off its CPU.
    """
    one = torch.zeros(1, device=device)
    _launch(one, WARMUP)
    rates = sorted(_rate(one, device) for _ in range(ROUNDS))
    return {"k_per_s": median(rates), "slowest": rates[0], "us": 1e3 / median(rates)}


def _rate(one: torch.Tensor, device: torch.device) -> float:
    """The host's time alone: the queue of a GPU holds more launches than a round has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    _launch(one, LAUNCHES)
    return LAUNCHES / (time.perf_counter() - began) / 1e3


def _launch(one: torch.Tensor, count: int) -> None:
    for _ in range(count):
        one.add_(1.0)
