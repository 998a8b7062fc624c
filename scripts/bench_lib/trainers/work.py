"""What all trainers do: rows of a global batch, from the same adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
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

    @property
    def description(self) -> str:
        """How it computes, in a few words."""

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


@dataclass(slots=True)
class Script:
    """The loop of the usual script: `loss_of` micro-batches [n, length] of token ids, mean over the
    tokens; gradients clipped by their norm.
    """

    work: Work
    parallel: Any  # the model, in DDP if there are several ranks
    parameters: Sequence[torch.nn.Parameter]
    optimiser: Optimiser
    micro_batch: int
    loss_of: Loss

    def step(self, step: int) -> float:
        """The mean loss of optimiser step `step` over all ranks."""
        work, world = self.work, self.work.world
        size = work.settings.rows_per_step(world.total)
        rows = work.rows[(step - 1) * size : step * size]
        total = torch.zeros((), device=world.device)
        batches = shares(rows, world, self.micro_batch)
        for batch in batches:
            with self._sent_after(last=batch is batches[-1]):
                loss = self.loss_of(self._ids(batch))
                (loss * (len(batch) * world.size / size)).backward()
            total += loss.detach() / len(batches)
        torch.nn.utils.clip_grad_norm_(self.parameters, work.settings.max_grad_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate_at(step, work.settings)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        world.sum(total)
        return float(total) / world.size

    def _sent_after(self, *, last: bool) -> AbstractContextManager[None]:
        """Gradients travel once, after the last micro-batch."""
        alone = last or self.work.world.size == 1
        waits: AbstractContextManager[None] = nullcontext() if alone else self.parallel.no_sync()
        return waits

    def _ids(self, batch: Sequence[Row]) -> torch.Tensor:
        return torch.tensor([list(row[0].tokens) for row in batch]).to(self.work.world.device)

    def close(self) -> None:
        """Nothing is held any more."""
        self.parallel = None
        self.optimiser.zero_grad(set_to_none=True)
