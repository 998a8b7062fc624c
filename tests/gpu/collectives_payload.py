"""Collectives one after the other, each between two quiet moments, so that counters can be read
there; then a load of matrix products. Says what it did by the kit and in `collectives.json`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

import torch
import torch.distributed as dist

import orchestrate_kit as kit

QUIET_S = 2.5  # more than samples are apart, whatever the driver takes for one
LOAD_S = 8.0
ROUNDS = 20
WARMUP = 3
CUDA = torch.cuda.is_available()
BYTES = 1 << 30 if CUDA else 1 << 16


def main() -> None:
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if CUDA else torch.device("cpu")
    if CUDA:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if CUDA else "gloo", device_id=device if CUDA else None)
    whole = torch.zeros(BYTES // 4, device=device)
    other = torch.zeros_like(whole)
    part = torch.zeros(whole.numel() // dist.get_world_size(), device=device)
    operations: dict[str, Callable[[], object]] = {
        "all-reduce": lambda: dist.all_reduce(whole),
        "all-gather": lambda: dist.all_gather_into_tensor(whole, part),
        "reduce-scatter": lambda: dist.reduce_scatter_tensor(part, whole),
        "all-to-all": lambda: dist.all_to_all_single(other, whole),
    }
    done = [measure(op, run) for op, run in operations.items()]
    if dist.get_rank() == 0:
        (kit.output_dir() / "collectives.json").write_text(json.dumps(done))
    if CUDA:
        burn(device)
    dist.destroy_process_group()


def measure(op: str, run: Callable[[], object]) -> dict[str, object]:
    """When ``ROUNDS`` of it began and had ended, by this machine's clock."""
    try:
        repeat(run, WARMUP)
    except RuntimeError as error:
        return {"op": op, "problem": str(error)[:200]}
    time.sleep(QUIET_S)
    began = time.time()
    repeat(run, ROUNDS)
    ended = time.time()
    time.sleep(QUIET_S)
    kit.collective(op, BYTES, WARMUP + ROUNDS)
    return {"op": op, "bytes": BYTES, "count": ROUNDS, "ranks": dist.get_world_size(),
            "began": began, "ended": ended}  # fmt: skip


def repeat(run: Callable[[], object], times: int) -> None:
    for _ in range(times):
        run()
    if CUDA:
        torch.cuda.synchronize()


def burn(device: torch.device) -> None:
    """A steady draw of power."""
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    until = time.monotonic() + LOAD_S
    while time.monotonic() < until:
        for _ in range(10):
            torch.mm(a, a)
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
