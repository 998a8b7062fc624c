"""Matrix products: the fastest shape, many of one shape, and whether they repeat bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

import torch

from orchestrate_models.devices import fp8_reason

from ..base.bandwidth import product_tflops
from ..base.options import Options
from ..base.robust_stats import median
from . import shapes
from .shapes import Shape
from .timing import CacheFlush, timed

WARMUP, ITERATIONS = 50, 100
QUICK_WARMUP, QUICK_ITERATIONS = 3, 7
FINALISTS = 2
SEARCH_S = 10.0
SUSTAINED_SHAPE = (8192, 8192, 8192)
CPU_SHAPE = (128, 128, 128)
WINDOW_S = 1.0
CHECKED_ROWS = 8
DTYPES = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}
# Of the square root of k, the size of a typical result: an ulp of bf16, or of fast accumulation.
TOLERANCE = {"bf16": 4e-3, "fp8": 2e-2}
RELATIVE_TOLERANCE = 1.6e-2


class Product:
    """``out = a b^T`` of random normal numbers; the output is bf16."""

    def __init__(self, shape: Shape, kind: str, device: torch.device, seed: int) -> None:
        m, n, k = shape
        self.shape, self.kind = shape, kind
        generator = torch.Generator(device).manual_seed(seed)
        left, right = (
            torch.randn(rows, k, device=device, dtype=torch.bfloat16, generator=generator)
            for rows in (m, n)
        )
        self.a, self.b = left.to(DTYPES[kind]), right.to(DTYPES[kind])
        self.out = torch.empty(m, n, dtype=torch.bfloat16, device=device)
        self._one = torch.ones((), device=device)

    def run(self) -> None:
        if self.kind == "bf16":
            torch.mm(self.a, self.b.t(), out=self.out)
        else:
            self.out = torch._scaled_mm(  # noqa: SLF001 - torch's name for its fp8 product
                self.a,
                self.b.t(),
                scale_a=self._one,
                scale_b=self._one,
                out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )

    def scramble(self) -> None:
        """Other output before each product: cells that change cost power."""
        self.out.normal_()

    def wrong_cells(self) -> int:
        """Cells of sampled rows that differ from the product in double precision."""
        last = self.shape[0] - 1
        rows = [last * index // (CHECKED_ROWS - 1) for index in range(CHECKED_ROWS)]
        found = self.out[rows].double()
        left = torch.stack([self.a[row].float().double() for row in rows])
        expected = torch.cat(
            [left @ part.float().double().t() for part in self.b.split(1024)], dim=1
        )
        allowed = TOLERANCE[self.kind] * math.sqrt(self.shape[2])
        within = (found - expected).abs() <= allowed + RELATIVE_TOLERANCE * expected.abs()
        return int((~within).sum().item())


def can_multiply(kind: str, device: torch.device) -> str:
    """Empty, or why products of this kind cannot be run there."""
    if kind != "fp8":
        return ""
    return fp8_reason(device) if device.type == "cuda" else "no GPU"


def find_shapes(kind: str, device: torch.device, options: Options) -> list[Shape]:
    """The fastest shapes by a few iterations each; the search ends by count and by time."""
    deadline = time.monotonic() + SEARCH_S
    flush = CacheFlush(device)

    def rate(shape: Shape) -> float:
        product = Product(shape, kind, device, options.seed)
        return median(_rates(product, flush, QUICK_WARMUP, QUICK_ITERATIONS))

    cuda = device.type == "cuda"
    seeds = [*shapes.KNOWN, *shapes.grid((2048, 4096, 8192, 16384))] if cuda else [CPU_SHAPE]
    found = shapes.search(
        seeds,
        rate,
        step=1024 if cuda else 64,
        trials=options.search_trials,
        go_on=lambda: time.monotonic() < deadline,
    )
    return shapes.best(found, FINALISTS)


def measure(
    finalists: Iterable[Shape], kind: str, device: torch.device, options: Options
) -> dict[str, Any]:
    """The whole protocol for the shapes that were fast on any GPU."""
    flush = CacheFlush(device)
    found = [_measure(Product(shape, kind, device, options.seed), flush) for shape in finalists]
    return {
        "shapes": found,
        "best": max(found, key=lambda one: float(one["median"])),
        "wrong": sum(one["wrong"] for one in found),
        "checked": CHECKED_ROWS * sum(one["shape"][1] for one in found),
    }


def _measure(product: Product, flush: CacheFlush) -> dict[str, Any]:
    cuda = product.out.is_cuda
    rates = _rates(product, flush, *((WARMUP, ITERATIONS) if cuda else (2, 5)))
    return {
        "shape": list(product.shape),
        "mean": sum(rates) / len(rates),
        "median": median(rates),
        "max": max(rates),
        "iterations": len(rates),
        "wrong": product.wrong_cells(),
    }


def _rates(product: Product, flush: CacheFlush, warmup: int, iterations: int) -> list[float]:
    """TFLOPS of each iteration."""

    def before() -> None:
        flush()
        product.scramble()

    device = product.out.device
    times = timed(product.run, device, warmup=warmup, iterations=iterations, before=before)
    return [product_tflops(product.shape, seconds) for seconds in times.each]


def sustain(device: torch.device, options: Options) -> dict[str, Any]:
    """One product again and again, in windows of a second; after each its bits are compared.

    Equal inputs must give equal bits: anything else is silent data corruption.
    """
    shape = SUSTAINED_SHAPE if device.type == "cuda" else CPU_SHAPE
    product = Product(shape, "bf16", device, options.seed)
    product.run()
    expected = product.out.clone()
    bits = expected.view(torch.int16).long()
    places = torch.arange(1, bits.numel() + 1, device=device).view_as(bits) % 65_537
    once = timed(product.run, device, warmup=3, iterations=3).median
    each_window = max(1, min(20_000, int(WINDOW_S / once)))
    rates: list[float] = []
    different = 0
    deadline = time.monotonic() + options.sustained_s
    while not rates or time.monotonic() < deadline:
        times = timed(product.run, device, warmup=0, iterations=each_window)
        rates.append(product_tflops(shape, times.per_iteration))
        different += int((product.out != expected).sum().item())
    return {
        "shape": list(shape),
        "seconds": options.sustained_s,
        "windows": rates,
        "last": rates[-1],
        "first_to_last": rates[-1] / rates[0],
        "products": each_window * len(rates),
        "digest": int((bits * places).sum().item()),
        "different_cells": different,
        "compared_cells": expected.numel() * len(rates),
    }
