"""All-reduces until somebody ends it."""

from __future__ import annotations

import os
import time

import torch
import torch.distributed as dist


def main() -> None:
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    numbers = torch.ones(2**20, device=device)
    for step in range(100_000):
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
        if cuda:
            torch.cuda.synchronize()
        time.sleep(0.01)
        if step % 100 == 0:
            print(f"step {step}", flush=True)


if __name__ == "__main__":
    main()
