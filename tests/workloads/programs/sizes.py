"""Two ranks look for their micro-batch twice: rank 1 has room for one row, then for none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

sys.path.append(sys.argv[1])

import torch

import orchestrate_kit as kit
from finetune.base.settings import Settings
from finetune.base.world import World, joined_world
from finetune.training.batch_size_search import RowTooLong, find_batch_size


class Device:
    """An engine and its memory, of so many rows."""

    def __init__(self, fitting: int) -> None:
        self.fitting = fitting

    in_step = False

    def fit(self, rows: int) -> None:
        """Nothing depends on it."""

    def accumulate(self, batch: SimpleNamespace, scale: float) -> None:
        if scale * batch.input_ids.numel() > 12 * self.fitting:
            raise torch.OutOfMemoryError("full")

    def held(self) -> float:
        return 0.0

    def free(self) -> float:
        return 1e12

    def peak_of(self, work: Callable[[], None]) -> float:
        work()
        return 0.0


def report(world: World, fitting: int) -> None:
    device = Device(2 if world.rank == 0 else fitting)
    settings = replace(kit.parse(Settings, []), engine="fused", global_batch=6, sequence_length=12)
    trainer = SimpleNamespace(engine=device, settings=settings, world=world, buffer=torch.zeros(3))
    try:
        size = find_batch_size(trainer, device)  # type: ignore[arg-type]
    except RowTooLong as error:
        sys.stdout.write(f"rank {world.rank}: {error}\n")
    else:
        sys.stdout.write(f"rank {world.rank}: {size.rows} rows: {size.reason}\n")


with joined_world("cpu", timeout_s=60) as joined:
    for rows in (1, 0):
        report(joined, rows)
