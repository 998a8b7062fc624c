"""What the acceptance workload is compared with: plain torch, nothing of the product.

Under torchrun: all-reduce as nccl-tests counts it (5 + 20 iterations at each size, mean over ranks)
and the best of a sweep of torch.mm over shapes. Rank 0 prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

CUDA = torch.cuda.is_available()
SIZES = (2**30, 2**32) if CUDA else (2**20,)
EDGES = (4096, 8192, 16384) if CUDA else (128,)
ITERATIONS = 40 if CUDA else 3
SLOW_GB_S = 20.0


def main() -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if CUDA else torch.device("cpu")
    if CUDA:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if CUDA else "gloo", device_id=device if CUDA else None)
    found = {"ranks": world, "all_reduce": all_reduce(device, world), "matmul": matmul(device)}
    if rank == 0:
        print("REFERENCE " + json.dumps(found), flush=True)
    dist.destroy_process_group()


def all_reduce(device: torch.device, world: int) -> dict[str, float]:
    """Bus bandwidth in GB/s by size in bytes."""
    found = {}
    for size in SIZES:
        if found and found[str(SIZES[0])] < SLOW_GB_S:
            break  # over sockets the largest size would take a minute
        data = torch.randn(size // 4, device=device)
        once = clocked(lambda data=data: dist.all_reduce(data), 1, device)
        slow = torch.tensor([once], device=device)
        dist.all_reduce(slow, op=dist.ReduceOp.MAX)
        rounds = max(3, min(20, int(2.0 / slow.item())))
        for _ in range(min(5, rounds)):
            dist.all_reduce(data)
        dist.barrier()
        mine = torch.tensor([clocked(lambda data=data: dist.all_reduce(data), rounds, device)])
        mean = mine.to(device)
        dist.all_reduce(mean)
        seconds = mean.item() / world
        found[str(size)] = size / seconds * 2 * (world - 1) / world / 1e9
        del data
    return found


def clocked(work: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Seconds of one round, by the host's clock around all of them."""
    if CUDA:
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    for _ in range(rounds):
        work()
    if CUDA:
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / rounds


def matmul(device: torch.device) -> dict[str, object]:
    """The best median TFLOPS over shapes, on the slowest, the median and the fastest rank."""
    best, shape = max(
        (rate(m, n, k, device), (m, n, k)) for m in EDGES for n in EDGES for k in EDGES
    )
    everyone: list[float] = [0.0] * dist.get_world_size()
    dist.all_gather_object(everyone, best)
    middle = statistics.median(everyone)
    return {"median": middle, "low": min(everyone), "high": max(everyone), "shape": shape}


def rate(m: int, n: int, k: int, device: torch.device) -> float:
    a, b = (torch.randn(rows, k, device=device, dtype=torch.bfloat16) for rows in (m, n))
    out = torch.empty(m, n, device=device, dtype=torch.bfloat16)
    flush = torch.empty(256 * 2**20 if CUDA else 1, dtype=torch.int8, device=device)
    times = []
    for _ in range(ITERATIONS):
        flush.zero_()
        out.normal_()
        times.append(stopwatch(lambda: torch.mm(a, b.t(), out=out)))
    seconds = [read() for read in times]
    return 2.0 * m * n * k / statistics.median(seconds[ITERATIONS // 4 :]) / 1e12


def stopwatch(work: Callable[[], object]) -> Callable[[], float]:
    if not CUDA:
        began = time.perf_counter()
        work()
        took = time.perf_counter() - began
        return lambda: took
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    work()
    end.record()

    def read() -> float:
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    return read


if __name__ == "__main__":
    main()
