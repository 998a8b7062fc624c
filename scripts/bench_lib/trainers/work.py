"""What all trainers do: rows of a global batch, from the same adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from finetune.base.settings import Settings
from finetune.base.world import World
from finetune.data.packing import Row
from finetune.training.trainer import learning_rate_at, shares

LEARNING_RATE = 2e-4
Loss = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Work:
    """Rows of a global batch, each `length` tokens, all of them text."""

    settings: Settings
    world: World
    rows: list[Row]

    @property
    def tokens_per_step(self) -> int:
        return self.settings.rows_per_step(self.world.total) * self.settings.sequence_length

    @property
    def on_gpu(self) -> bool:
        return self.world.device.type == "cuda"

    def ready(self) -> None:
        """Until all ranks are done with what they were given."""
        self.world.synchronize()
        self.world.barrier()


class Side(Protocol):
    """One trainer in its turn."""

    description: str

    def step(self, step: int) -> float:
        """The loss of optimiser step `step`, counted from 1."""

    def close(self) -> None:
        """Take away what was added to the model."""


class Optimiser(Protocol):
    """What a step needs of an optimiser."""

    param_groups: list[dict[str, Any]]

    def step(self) -> Any: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...


def trained(model: Any) -> list[torch.nn.Parameter]:
    """The adapter's parameters."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def in_parallel(model: Any, work: Work) -> Any:
    """`model`, whose gradients are averaged over the ranks if there are several."""
    if work.world.size == 1:
        return model
    on = [work.world.device] if work.on_gpu else None
    return torch.nn.parallel.DistributedDataParallel(model, device_ids=on)


def accumulated_step(
    step: int,
    work: Work,
    parallel: Any,
    parameters: Sequence[torch.nn.Parameter],
    optimiser: Optimiser,
    micro_batch: int,
    loss_of: Loss,
) -> float:
    """One step as the usual script makes it: `loss_of` micro-batches [n, length] of token ids, mean
    over the tokens; gradients clipped by their norm. Returns the step's mean loss over all ranks.
    """
    size = work.settings.rows_per_step(work.world.total)
    batches = shares(work.rows[(step - 1) * size : step * size], work.world, micro_batch)
    total = torch.zeros((), device=work.world.device)
    for batch in batches:
        last = batch is batches[-1] or work.world.size == 1
        ids = torch.tensor([list(row[0].tokens) for row in batch]).to(work.world.device)
        with nullcontext() if last or not hasattr(parallel, "no_sync") else parallel.no_sync():
            loss = loss_of(ids)
            (loss * (len(batch) * work.world.size / size)).backward()
        total += loss.detach() / len(batches)
    torch.nn.utils.clip_grad_norm_(parameters, work.settings.max_grad_norm)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate_at(step, work.settings)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    work.world.sum(total)
    return float(total) / work.world.size
