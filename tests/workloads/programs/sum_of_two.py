"""One of two ranks whose gradients are summed beside a backward pass; argv: rank, store, folder of
the workloads. Rank 1 had no micro-batch.
"""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist

rank, store, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
sys.path.append(folder)
from finetune.fused.overlap import Overlap  # noqa: E402 - after its folder

dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
buffer = torch.arange(11.0) if rank == 0 else torch.full((11,), 100.0)
overlap = Overlap(buffer, [3, 1, 4, 2], bucket_bytes=16)
begun = []
for layer in reversed(range(4 if rank == 0 else 0)):
    overlap.finished(layer)
    begun.append(overlap.begun)
overlap.wait()
sys.stdout.write(f"{begun} {buffer.tolist()}\n")
dist.destroy_process_group()
