"""Sweeps over the sizes of collectives, by nccl-tests' definitions, with every result checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

import orchestrate_kit as kit

from ..base.bandwidth import (
    ALL_GATHER,
    ALL_REDUCE,
    ALL_TO_ALL,
    COLLECTIVES,
    REDUCE_SCATTER,
    bus_bandwidth,
    rounded,
    sweep_sizes,
)
from ..base.options import Options
from ..base.ranks import RAILS, Group, Ranks
from .timing import timed

WARMUP, ITERATIONS = 5, 20
FEWEST_ITERATIONS = 3
ITEM_BYTES = 4
CHECK_ITEMS = 1 << 24
# Above this, what is checked is the beginning, the middle and the end.
CHECK_WHOLE_ITEMS = 1 << 31
OUT_OF_PLACE, IN_PLACE = "out-of-place", "in-place"


def pattern(first: int, count: int, rank: int, device: torch.device) -> torch.Tensor:
    """What ``rank`` puts at ``first``...: numbers 0..15 that every rank can work out.

    Their sums over up to a million ranks are exact in float32.
    """
    at = torch.arange(first, first + count, dtype=torch.int64, device=device)
    return ((at * 1_103_515_245 + rank * 12_345 + 7) >> 8 & 15).float()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One collective on buffers of one size: how to fill, run and check it."""

    collective: str
    placement: str
    rank: int
    ranks: int
    source: torch.Tensor
    target: torch.Tensor
    run: Callable[[], object]

    def fill(self) -> None:
        """Our input, anew: a collective in place has overwritten it."""
        first = self.rank * self.source.numel() if self.collective == ALL_GATHER else 0
        for start in range(0, self.source.numel(), CHECK_ITEMS):
            part = self.source[start : start + CHECK_ITEMS]
            part.copy_(pattern(first + start, part.numel(), self.rank, part.device))

    def expected(self, start: int, count: int, device: torch.device) -> torch.Tensor:
        """What the target must hold there. Positions count over the whole message."""
        chunk = self.target.numel() // self.ranks
        match self.collective:
            case "all-reduce":
                return self._sum(start, count, device)
            case "reduce-scatter":
                return self._sum(self.rank * self.target.numel() + start, count, device)
            case "all-gather":
                pieces = _pieces(start, count, chunk)
                parts = [
                    pattern(sender * chunk + at, length, sender, device)
                    for sender, at, length in pieces
                ]
                return torch.cat(parts)
            case _:
                pieces = _pieces(start, count, chunk)
                parts = [
                    pattern(self.rank * chunk + at, length, sender, device)
                    for sender, at, length in pieces
                ]
                return torch.cat(parts)

    def _sum(self, start: int, count: int, device: torch.device) -> torch.Tensor:
        total = torch.zeros(count, device=device)
        for rank in range(self.ranks):
            total += pattern(start, count, rank, device)
        return total

    def wrong(self) -> tuple[int, int]:
        """Elements that are not what they should be, and how many were looked at."""
        wrong = checked = 0
        total = self.target.numel()
        for start in _windows(total, self.ranks):
            part = self.target[start : start + CHECK_ITEMS]
            expected = self.expected(start, part.numel(), part.device)
            wrong += int((part != expected).sum().item())
            checked += part.numel()
        return wrong, checked


def _pieces(start: int, count: int, chunk: int) -> Iterator[tuple[int, int, int]]:
    """(chunk number, position in it, length) of every chunk that ``start``... lies in."""
    end = start + count
    while start < end:
        number, at = divmod(start, chunk)
        length = min(chunk - at, end - start)
        yield number, at, length
        start += length


def _windows(total: int, ranks: int) -> list[int]:
    """Where to check: everywhere, or at the beginning, the middle and the end."""
    if total * ranks <= CHECK_WHOLE_ITEMS:
        return list(range(0, total, CHECK_ITEMS))
    return sorted({0, total // 2, max(0, total - CHECK_ITEMS)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where collectives are run: one group, and memory for two buffers of the largest size."""

    ranks: Ranks
    group: Group
    memory: torch.Tensor
    options: Options


def exchange(collective: str, placement: str, size: int, bench: Bench) -> Exchange:
    """``size`` bytes, as nccl-tests counts them, at the beginning of the memory."""
    group, memory = bench.group, bench.memory
    count, n = size // ITEM_BYTES, group.size
    rank = group.members.index(bench.ranks.rank)
    whole, other, share = memory[:count], memory[count : 2 * count], count // n
    handle = group.handle
    mine = slice(rank * share, (rank + 1) * share)
    # Newer releases of torch have other names for the same two, and warn about these.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    if collective == ALL_REDUCE:
        source = target = whole
    elif collective == ALL_GATHER:
        target = whole
        source = whole[mine] if placement == IN_PLACE else other[:share]
    elif collective == REDUCE_SCATTER:
        source = whole
        target = whole[mine] if placement == IN_PLACE else other[:share]
    else:
        source, target = whole, other
    runs: dict[str, Callable[[], object]] = {
        ALL_REDUCE: lambda: dist.all_reduce(whole, group=handle),
        ALL_GATHER: lambda: gather(target, source, group=handle),
        REDUCE_SCATTER: lambda: scatter(target, source, group=handle),
        ALL_TO_ALL: lambda: dist.all_to_all_single(target, source, group=handle),
    }
    return Exchange(
        collective=collective,
        placement=placement,
        rank=rank,
        ranks=n,
        source=source,
        target=target,
        run=runs[collective],
    )


def placements(collective: str) -> tuple[str, ...]:
    """torch has all-reduce only in place, and all-to-all only between two buffers."""
    if collective == ALL_REDUCE:
        return (IN_PLACE,)
    return (OUT_OF_PLACE,) if collective == ALL_TO_ALL else (OUT_OF_PLACE, IN_PLACE)


def sweep(ranks: Ranks, options: Options, log: Callable[[str], None]) -> list[dict[str, Any]]:
    """Every collective at every size, in every group; each rank's own times."""
    found: list[dict[str, Any]] = []
    if not ranks.groups:
        return found
    memory = _memory(ranks, options)
    for group in ranks.groups:
        bench = Bench(ranks=ranks, group=group, memory=memory, options=options)
        for collective in (ALL_REDUCE,) if group.scope == RAILS else COLLECTIVES:
            log(f"{collective} {group.scope}")
            for placement in placements(collective):
                found += _sizes(collective, placement, bench)
    return found


def _memory(ranks: Ranks, options: Options) -> torch.Tensor:
    """Two buffers of the largest size that fits on every rank, with room for the checks."""
    largest = options.max_bytes
    if ranks.cuda:
        free, _ = torch.cuda.mem_get_info(ranks.device)
        largest = min(largest, int(min(ranks.gather(free)) * 0.4))
    items = 2 * (max(largest, options.min_bytes) // ITEM_BYTES + 2 * ranks.size)
    return torch.zeros(items, device=ranks.device)


def _sizes(collective: str, placement: str, bench: Bench) -> Iterator[dict[str, Any]]:
    options = bench.options
    largest = min(options.max_bytes, bench.memory.numel() // 2 * ITEM_BYTES)
    for asked in sweep_sizes(options.min_bytes, largest, options.size_factor):
        size = rounded(asked, bench.group.size, ITEM_BYTES)
        one = exchange(collective, placement, size, bench)
        record, slow = _measure(one, size, bench)
        yield record
        if slow:
            # Larger ones would take longer still; the figures say at which size they are.
            return


def _measure(one: Exchange, size: int, bench: Bench) -> tuple[dict[str, Any], bool]:
    """The result is checked once on fresh input, then the time is taken.

    All ranks, also those of other groups, do the same number of iterations.
    """
    ranks, group = bench.ranks, bench.group
    one.fill()
    ranks.meet()
    one.run()
    wrong, checked = one.wrong()
    ranks.meet()
    once = ranks.largest(timed(one.run, ranks.device, warmup=0, iterations=1).each[0])
    affordable = int(bench.options.size_budget_s / max(once, 1e-9))
    iterations = max(FEWEST_ITERATIONS, min(ITERATIONS, affordable - WARMUP))
    warmup = WARMUP if affordable >= WARMUP + FEWEST_ITERATIONS else 0
    ranks.meet()
    times = timed(one.run, ranks.device, warmup=warmup, iterations=iterations)
    kit.collective(one.collective, size, 2 + warmup + iterations, group.size)
    record = {
        "collective": one.collective,
        "placement": one.placement,
        "scope": group.scope,
        "members": list(group.members),
        "nodes": group.nodes,
        "size": size,
        "warmup": warmup,
        "iterations": iterations,
        "seconds": times.per_iteration,
        "p50": times.percentile(50),
        "p99": times.percentile(99),
        "busbw": bus_bandwidth(one.collective, group.size, size, times.per_iteration),
        "wrong": wrong,
        "checked": checked,
    }
    return record, affordable < FEWEST_ITERATIONS
