"""What makes losses and gradients: transformers and autograd, or the fused engine."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional

from ..data.packing import IGNORED, Batch
from ..fused.engine import FusedEngine
from ..fused.overlap import Overlap
from .lora import Trainable


class Engine(Protocol):
    """Losses and gradients of one rank's micro-batches, which are collated on the host."""

    @property
    def description(self) -> str:
        """How it computes, in a few words."""

    def loss(self, batch: Batch) -> Tensor:
        """Cross entropy summed over the target tokens, in nats."""

    def accumulate(self, batch: Batch, scale: float, overlap: Overlap | None = None) -> Tensor:
        """`scale` times that sum; its gradient is added to the adapter's. With `overlap`, gradients
        that are complete are sent at once.
        """

    @property
    def in_step(self) -> bool:
        """Whether all ranks must make the same number of passes, of the same kinds."""

    def accompany(self, *, backward: bool = False, overlap: Overlap | None = None) -> None:
        """A pass without a micro-batch, as of `loss`, or with `backward` of `accumulate`, for the
        sake of the other ranks.
        """

    def finish_pass(self) -> None:
        """Do what other ranks wait for in a pass that failed on this one."""

    def overlap(self, buffer: Tensor) -> Overlap | None:
        """How one step's gradients are summed over the ranks beside the backward pass, if so."""

    def fit(self, rows: int) -> None:
        """Be ready for micro-batches of so many rows."""

    def refresh(self) -> None:
        """Follows each change of the adapter's values."""


def engine_of(trainable: Trainable) -> Engine:
    """The engine that the settings ask for. Raises :class:`fused.model.NotFused` with what is in
    the way.
    """
    settings = trainable.settings
    if settings.engine == "fused":
        return FusedEngine(trainable.model, settings, trainable.world, trainable.group)
    return PlainEngine(trainable)


class PlainEngine:
    """The model as transformers and peft compute it."""

    description = "transformers and autograd"
    in_step = False

    def __init__(self, trainable: Trainable) -> None:
        self._trainable = trainable

    def loss(self, batch: Batch) -> Tensor:
        return summed_loss(self._trainable, batch)

    def accumulate(self, batch: Batch, scale: float, overlap: Overlap | None = None) -> Tensor:
        assert overlap is None
        loss = summed_loss(self._trainable, batch) * scale
        loss.backward()
        return loss.detach()

    def accompany(self, *, backward: bool = False, overlap: Overlap | None = None) -> None:
        """No rank needs another one's passes."""

    def finish_pass(self) -> None:
        """No rank waits for another one in a pass."""

    def overlap(self, buffer: Tensor) -> Overlap | None:  # noqa: ARG002 - autograd says nothing
        return None

    def fit(self, rows: int) -> None:
        """Nothing depends on it."""

    def refresh(self) -> None:
        """Nothing is kept beside the adapter."""


def summed_loss(trainable: Trainable, batch: Batch) -> Tensor:
    """Cross entropy summed over the target tokens of a micro-batch, in nats."""
    batch = batch.to(trainable.world.device)
    labels = batch.labels[:, batch.predicting]
    return functional.cross_entropy(
        trainable.logits(batch).flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )
