"""All-reduces in a loop while 8 GiB of GPU memory are held; goes on from its checkpoint.

    holding.py STEPS

Without a GPU the same on the CPU with gloo and little memory.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

import orchestrate_kit as kit

HELD_BYTES = 8 << 30


def main() -> None:
    steps = int(sys.argv[1])
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    dist.init_process_group("nccl" if cuda else "gloo")
    held = torch.ones(HELD_BYTES if cuda else 1 << 20, dtype=torch.uint8, device=device)
    place = Path(kit.checkpoint_dir()) / f"step-{kit.rank()}"
    # Ranks were ended at different steps: all go on from the earliest one.
    own = torch.tensor(int(place.read_text()) if place.exists() else 0, device=device)
    dist.all_reduce(own, op=dist.ReduceOp.MIN)
    first = int(own.item())
    print(f"from step {first}, {held.numel() >> 20} MiB held", flush=True)
    for step in range(first, steps):
        value = torch.ones(1 << 20, device=device)
        dist.all_reduce(value)
        if value[0].item() != dist.get_world_size():
            raise SystemExit(f"step {step}: {value[0].item()}")
        place.with_suffix(".new").write_text(str(step + 1))
        place.with_suffix(".new").replace(place)
        kit.metric("step", step, step=step)
        kit.progress(step + 1, steps, "steps")
        print(f"step {step}", flush=True)
        time.sleep(0.1)
    kit.metric("steps", steps, "steps")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
