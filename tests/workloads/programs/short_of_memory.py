"""Two ranks with shared weights look for their micro-batch, and rank 1 alone runs out of memory: in
a layer of the pass of two rows, or of one; then both train. argv: folder of the workloads, base.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

sys.path.append(sys.argv[1])

import torch

import orchestrate_kit as kit
from finetune.base.settings import Settings
from finetune.base.world import World, joined_world
from finetune.data.packing import text_example
from finetune.model.lora import prepare
from finetune.training.batch_size_search import RowTooLong, find_batch_size
from finetune.training.trainer import Trainer

LENGTH = 12


class Full:
    """Memory that ends at more than so many rows, in the forward or backward pass of a layer."""

    def __init__(self, layer: Any, fitting: int, where: str) -> None:
        self._layer, self._fitting, self._where = layer, fitting, where
        self._inner: Callable[..., Any] = getattr(layer, where)

    def _run(self, first: torch.Tensor, *rest: Any) -> Any:
        if len(first) > LENGTH * self._fitting:
            raise torch.OutOfMemoryError("full")
        return self._inner(first, *rest)

    def held(self) -> float:
        return 0.0

    def free(self) -> float:
        return 1e12

    def peak_of(self, work: Callable[[], None]) -> float:
        setattr(self._layer, self._where, self._run)
        try:
            work()
        finally:
            setattr(self._layer, self._where, self._inner)
        return 0.0


def report(world: World, trainer: Trainer, fitting: int, where: str) -> None:
    layer = trainer.engine.model.layers[2]  # type: ignore[attr-defined]
    memory = Full(layer, 2 if world.rank == 0 else fitting, where)
    try:
        told = f"{find_batch_size(trainer, memory).rows} rows"
    except RowTooLong as error:
        told = str(error)
    loss = trainer.step(1).loss
    sys.stdout.write(f"rank {world.rank}: {told}; then {loss:.6f}\n")


with joined_world("cpu", timeout_s=60) as joined:
    argv = [f"--model={sys.argv[2]}", "--engine=fused", "--shard=on", "--steps=1", "--lora-rank=8"]
    argv += ["--global-batch=4", f"--sequence-length={LENGTH}", "--learning-rate=1e-30"]
    rows = [(text_example([7], [5] * (LENGTH - 1)),) for _ in range(4)]
    training = Trainer(prepare(kit.parse(Settings, argv), joined), rows)
    for rows_fitting in (1, 0):
        for failing in ("forward", "backward"):
            report(joined, training, rows_fitting, failing)
