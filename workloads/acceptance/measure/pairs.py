#!/usr/bin/env python3
"""Copies between every pair of the node's GPUs, as JSON on standard output.

    python pairs.py --mib 512

A process of its own: it opens every GPU, and a kernel that fails on a peer's memory must not end
the ranks that measure the rest. Both ways of copying are tried: by copy engine, and by a kernel
that reads the peer's memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

if not __package__:  # a process of its own, started by its path: a module of the workload, too
    _workload = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(_workload.parent))
    __package__ = f"{_workload.name}.measure"

import torch

from ..base.robust_stats import median
from .timing import timed

SAMPLES = 3
COPIES = 4
ENGINE, KERNEL = "copy engine", "kernel"


def matrix(mib: int) -> dict[str, Any]:
    """GB/s from each GPU (row) to each other one (column); None on the diagonal, or no access."""
    count = mib * 2**20 // 4
    gpus = range(torch.cuda.device_count())
    arrays = [torch.full((count,), float(gpu + 1), device=f"cuda:{gpu}") for gpu in gpus]
    targets = [torch.zeros(count, device=f"cuda:{gpu}") for gpu in gpus]
    found: dict[str, Any] = {"mib": mib, "wrong": 0, "checked": 0, "notes": []}
    access = [[a == b or torch.cuda.can_device_access_peer(a, b) for b in gpus] for a in gpus]
    found["access"] = access
    for way in (ENGINE, KERNEL):
        rates: list[list[float | None]] = [[None] * len(gpus) for _ in gpus]
        found[way] = rates
        try:
            for source in gpus:
                for target in gpus:
                    if source != target and (way == ENGINE or access[source][target]):
                        rates[source][target] = _rate(way, arrays[source], targets[target])
                        wrong = int((targets[target] != float(source + 1)).sum().item())
                        found["wrong"] += wrong
                        found["checked"] += count
        except Exception as error:  # noted; the other way of copying counts by itself
            found["notes"].append(f"{way}: {type(error).__name__}: {str(error)[:200]}")
            if way == ENGINE:
                raise
    return found


def _rate(way: str, source: torch.Tensor, target: torch.Tensor) -> float:
    target.zero_()
    torch.cuda.synchronize(target.device)
    # The stream of the source's GPU carries the copy: its events must be that GPU's.
    gpu = source.device if way == ENGINE else target.device
    with torch.cuda.device(gpu):
        run = _engine_copy(source, target) if way == ENGINE else _kernel_copy(source, target)

        def several() -> None:
            for _ in range(COPIES):
                run()

        times = timed(several, gpu, warmup=1, iterations=SAMPLES, hold=True)
    torch.cuda.synchronize(target.device)
    return COPIES * source.nbytes / median(times.each) / 1e9


def _engine_copy(source: torch.Tensor, target: torch.Tensor) -> Any:
    return lambda: target.copy_(source, non_blocking=True)


def _kernel_copy(source: torch.Tensor, target: torch.Tensor) -> Any:
    from . import stream_kernels

    return stream_kernels.kernels(source, source, target, 1.0)["copy"]


def main() -> None:
    """Measure, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=512)
    print(json.dumps(matrix(parser.parse_args().mib)), flush=True)


if __name__ == "__main__":
    main()
