"""Timing of device work: by events on a GPU, by the monotonic clock on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..base.robust_stats import median, percentile

Work = Callable[[], object]

# More than the second-level cache of any GPU holds.
FLUSH_BYTES = 256 * 2**20
# How long the host may be ahead of the device before the timed copies begin.
HOLD_CYCLES = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """Seconds of every iteration, and from the first one's start to the last one's end."""

    each: tuple[float, ...]
    total: float

    @property
    def median(self) -> float:
        return median(self.each)

    @property
    def mean(self) -> float:
        """Without what was done between the iterations."""
        return sum(self.each) / len(self.each)

    @property
    def per_iteration(self) -> float:
        """As nccl-tests counts: all iterations by their number."""
        return self.total / len(self.each)

    def percentile(self, percent: float) -> float:
        return percentile(self.each, percent)


def timed(
    work: Work,
    device: torch.device,
    *,
    warmup: int,
    iterations: int,
    before: Work | None = None,
    hold: bool = False,
) -> Timed:
    """``before`` runs ahead of every iteration and is not timed.

    ``hold`` keeps a GPU busy until the host has enqueued everything, so that only the device's
    own time is seen.
    """
    for _ in range(warmup):
        if before:
            before()
        work()
    if device.type == "cuda":
        return _timed_by_events(work, device, iterations, before, hold=hold)
    return _timed_by_clock(work, iterations, before)


def _timed_by_events(
    work: Work, device: torch.device, iterations: int, before: Work | None, *, hold: bool
) -> Timed:
    pairs = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        for _ in range(iterations)
    ]
    torch.cuda.synchronize(device)
    if hold:
        torch.cuda._sleep(HOLD_CYCLES)  # noqa: SLF001 - the only kernel of torch that just waits
    for start, end in pairs:
        if before:
            before()
        start.record()
        work()
        end.record()
    torch.cuda.synchronize(device)
    each = tuple(start.elapsed_time(end) / 1e3 for start, end in pairs)
    return Timed(each=each, total=pairs[0][0].elapsed_time(pairs[-1][1]) / 1e3)


def _timed_by_clock(work: Work, iterations: int, before: Work | None) -> Timed:
    each: list[float] = []
    began = time.perf_counter()
    for _ in range(iterations):
        if before:
            before()
        start = time.perf_counter()
        work()
        each.append(time.perf_counter() - start)
    return Timed(each=tuple(each), total=time.perf_counter() - began)


class CacheFlush:
    """Writes more than the second-level cache holds; on a CPU nothing."""

    def __init__(self, device: torch.device) -> None:
        size = FLUSH_BYTES if device.type == "cuda" else 0
        self._buffer = torch.empty(size, dtype=torch.int8, device=device)

    def __call__(self) -> None:
        self._buffer.zero_()
