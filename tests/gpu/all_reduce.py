"""A script as anybody would write it: checks an all-reduce and times it."""

from __future__ import annotations

import os
import time

import torch
import torch.distributed as dist


def main() -> None:
    cuda = torch.cuda.is_available()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    numbers = torch.full((1024,), float(rank + 1), device=device)
    dist.all_reduce(numbers)
    assert numbers[0].item() == world * (world + 1) / 2, "wrong sum"
    payload = torch.ones(2**28 if cuda else 2**20, dtype=torch.bfloat16, device=device)
    for _ in range(5):
        dist.all_reduce(payload)
    wait(cuda)
    began = time.perf_counter()
    for _ in range(20):
        dist.all_reduce(payload)
    wait(cuda)
    seconds = (time.perf_counter() - began) / 20
    # Bus bandwidth as nccl-tests defines it: 2 (n-1)/n of the size per second.
    busbw = payload.nbytes / seconds * 2 * (world - 1) / world / 1e9
    if rank == 0:
        size = f"{payload.nbytes / 2**20:.0f} MiB"
        print(f"all-reduce of {size} over {world} ranks: {busbw:.1f} GB/s busbw")
    dist.destroy_process_group()


def wait(cuda: bool) -> None:
    if cuda:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
