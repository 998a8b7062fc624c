"""This process's place among the ranks, and what they tell each other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

import orchestrate_kit as kit

from .devices import choose_device, synchronize
from .unusable import UnusableSettings

PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """``control`` is a group on the CPUs, None of a single rank."""

    rank: int
    size: int
    local_size: int
    device: torch.device
    control: Any

    def gather(self, value: Any) -> list[Any]:
        """Every rank's picklable ``value``, in rank order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def counts(self, tensor_parallel: int) -> bool:
        """Whether this rank's work does: of ranks that share a model only that of the first."""
        return tensor_parallel == 1 or self.rank == 0

    def meet(self) -> None:
        """Wait for every rank, with the device idle."""
        synchronize(self.device)
        if self.size > 1:
            dist.barrier(group=self.control)


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """Join the process group that the launcher's environment describes, if there is one. Raises
    ``RuntimeError`` for a device that is not there.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    cuda = chosen.type == "cuda"
    control = None
    if size > 1:
        dist.init_process_group(
            "nccl" if cuda else "gloo", timeout=PATIENCE, device_id=chosen if cuda else None
        )
        control = dist.new_group(backend="gloo", timeout=PATIENCE)
    yield Ranks(
        rank=kit.rank(),
        size=size,
        local_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        device=chosen,
        control=control,
    )
    if size > 1:  # not after a failure: the other ranks would not take part
        dist.destroy_process_group()


def run_on_ranks(workload: str, device: str, run: Callable[[Ranks], None]) -> None:
    """Join the ranks and run. Settings that cannot be used here end with one line and status 2."""
    try:
        with joined_ranks(device) as ranks:
            run(ranks)
    except UnusableSettings as error:
        if kit.rank() == 0:
            print(f"{workload}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
