"""What ranks do at once: products beside a collective, and who comes late to one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from ..base.options import Options
from ..base.ranks import ALL, NODE, Group, Ranks
from ..base.robust_stats import median

WARMUP, REPEATS = 3, 10
STEPS = 50
GPU_SHAPE, CPU_SHAPE = (4096, 4096), (128, 128)
GPU_BYTES = 256 << 20
# Products until they take about as long as the collective: only then is all of it hidden.
MOST_PRODUCTS = 500


def measure(ranks: Ranks, options: Options) -> dict[str, Any]:
    """``hidden``: the share of the shorter of the two that costs nothing when both run at once.
    ``late_ms``: by how much each step of this rank ended after the earliest of all, the median.
    """
    group = ranks.group(NODE) or ranks.group(ALL)
    if group is None:
        return {"not_run": "one rank", "expected": False}
    work = Work(ranks, group, options)
    return {**work.overlap(), "late_ms": work.lateness()}


class Work:
    """Products and an all-reduce of one rank, in buffers of their own."""

    def __init__(self, ranks: Ranks, group: Group, options: Options) -> None:
        self._ranks, self._handle = ranks, group.handle
        shape = GPU_SHAPE if ranks.cuda else CPU_SHAPE
        dtype = torch.bfloat16 if ranks.cuda else torch.float32
        self._left = torch.randn(shape, device=ranks.device, dtype=dtype)
        self._out = torch.empty_like(self._left)
        size = GPU_BYTES if ranks.cuda else options.max_bytes
        self._buffer = torch.zeros(max(1, size // 4), device=ranks.device)
        self._products = 1

    def overlap(self) -> dict[str, float]:
        """Each alone, then both at once; the slowest rank's time counts for all."""
        exchange = self._time(lambda: self._begin().wait())
        once = self._time(self._compute)
        self._products = max(1, min(MOST_PRODUCTS, round(exchange / max(once, 1e-9))))
        compute = self._time(self._compute)
        both = self._time(self._at_once)
        saved = (compute + exchange - both) / min(compute, exchange)
        times = {"compute_s": compute, "exchange_s": exchange, "both_s": both}
        return {**times, "hidden": max(0.0, min(1.0, saved))}

    def lateness(self) -> float:
        """Whoever waits least for the others came last. No clock is compared with another's."""
        self._time(self._compute)
        waits = [self._wait_of_a_step() for _ in range(STEPS)]
        everyone: list[list[float]] = self._ranks.gather(waits)
        late = [max(step) - mine for mine, *step in zip(waits, *everyone, strict=True)]
        return median(late) * 1e3

    def _wait_of_a_step(self) -> float:
        self._compute()
        self._settle()
        began = time.perf_counter()
        dist.all_reduce(self._buffer[:1], group=self._handle)
        self._settle()
        return time.perf_counter() - began

    def _compute(self) -> None:
        for _ in range(self._products):
            torch.mm(self._left, self._left, out=self._out)

    def _begin(self) -> Any:
        return dist.all_reduce(self._buffer, group=self._handle, async_op=True)

    def _at_once(self) -> None:
        pending = self._begin()
        self._compute()
        pending.wait()

    def _settle(self) -> None:
        if self._ranks.cuda:
            torch.cuda.synchronize(self._ranks.device)

    def _time(self, work: Callable[[], object]) -> float:
        """Seconds, by the slowest rank, the median of the repeats."""
        seconds = []
        for _ in range(WARMUP + REPEATS):
            self._ranks.meet()
            began = time.perf_counter()
            work()
            self._settle()
            seconds.append(time.perf_counter() - began)
        return self._ranks.largest(median(seconds[WARMUP:]))
