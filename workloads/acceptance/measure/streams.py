"""Memory bandwidth by STREAM's kernels, with the arrays' values verified afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..base.bandwidth import STREAM_ARRAYS, stream_gigabytes
from ..base.options import Options
from ..base.robust_stats import median
from .timing import timed

WARMUP, ITERATIONS = 20, 100
SCALAR = 0.5
START = (1.0, 2.0, 0.0)

Kernels = dict[str, Callable[[], Any]]


def measure(device: torch.device, options: Options) -> dict[str, Any]:
    """Every kernel in every implementation there is; the best of them is the memory's rate."""
    count = options.stream_mib * 2**20 // 4
    found: dict[str, Any] = {"array_mib": options.stream_mib, "kernels": {}, "wrong": 0}
    notes: list[str] = []
    for name in ("torch", "triton") if device.type == "cuda" else ("torch",):
        try:
            rates, wrong = _implementation(name, count, device)
        except Exception as error:  # noqa: BLE001 - without a compiler torch's kernels remain
            notes.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
            continue
        found["wrong"] += wrong
        for kernel, rate in rates.items():
            found["kernels"].setdefault(kernel, {})[name] = rate
    if not found["kernels"]:
        raise RuntimeError("; ".join(notes))
    found["checked"] = 3 * count
    return {**found, "notes": notes}


def _implementation(
    name: str, count: int, device: torch.device
) -> tuple[dict[str, dict[str, float]], int]:
    a, b, c = (torch.full((count,), value, device=device) for value in START)
    kernels = _kernels(name, a, b, c)
    warmup, iterations = (WARMUP, ITERATIONS) if device.type == "cuda" else (2, 5)
    rates: dict[str, dict[str, float]] = {}
    for kernel, run in kernels.items():
        times = timed(run, device, warmup=warmup, iterations=iterations)
        rates[kernel] = {
            "best": stream_gigabytes(kernel, a.nbytes, min(times.each)),
            "median": stream_gigabytes(kernel, a.nbytes, median(times.each)),
        }
    # One clean pass over fresh values is what can be verified: triad feeds on its own output.
    for array, value in zip((a, b, c), START, strict=True):
        array.fill_(value)
    for kernel in STREAM_ARRAYS:
        kernels[kernel]()
    return rates, _wrong(a, b, c)


def _kernels(name: str, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> Kernels:
    if name == "triton":
        from . import stream_kernels

        return stream_kernels.kernels(a, b, c, SCALAR)
    return {
        # Not copy_(): that would be the copy engine's rate.
        "copy": lambda: torch.mul(a, 1.0, out=c),
        "scale": lambda: torch.mul(c, SCALAR, out=b),
        "add": lambda: torch.add(a, b, out=c),
        "triad": lambda: torch.add(b, c, alpha=SCALAR, out=a),
    }


def _wrong(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> int:
    """Elements that differ from what copy, scale, add and triad make of the start values."""
    first = START[0]
    scaled = SCALAR * first
    added = first + scaled
    expected = (scaled + SCALAR * added, scaled, added)
    return sum(
        int((array != value).sum().item()) for array, value in zip((a, b, c), expected, strict=True)
    )
