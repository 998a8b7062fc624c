"""The fused engine as the trainer uses it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fused.layer import Recompute
from fused.memory import Choice, choose, cost_of
from fused.model import FusedModel, Laid
from fused.overlap import Overlap
from packing import Batch
from settings import Settings
from world import World

ADAM_BYTES = 12  # gradient and two moments in fp32, for each value of the adapter


class FusedEngine:
    """Loss and gradients of one rank. Raises :class:`fused.model.NotFused` if it cannot serve."""

    def __init__(self, peft_model: Any, settings: Settings, world: World) -> None:
        self.model = FusedModel(peft_model)
        self.world = world
        self._sizes = [
            sum(p.numel() for j in layer.joined for p in (*j.a, *j.b))
            for layer in self.model.layers
        ]
        tokens = settings.micro_batch * settings.sequence_length
        self.choice = self._choose(settings.recompute, tokens, ADAM_BYTES * sum(self._sizes))
        again, why = self.choice.recompute.value, self.choice.reason
        self.description = f"fused passes, computed again: {again} ({why})"

    def _choose(self, asked: str, tokens: int, reserved: int) -> Choice:
        if asked != "auto":
            return Choice(Recompute(asked), "asked for")
        if self.world.device.type != "cuda":
            return Choice(Recompute.NONE, "no GPU memory to save")
        free, _ = torch.cuda.mem_get_info(self.world.device)
        itemsize = self.model.layers[0].qkv.storage.element_size()
        return choose(cost_of(self.model.layers, itemsize), tokens, free - reserved)

    def loss(self, batch: Batch) -> Tensor:
        """Summed cross entropy in nats, without gradients."""
        return self.model.loss(self.model.lay(batch))

    def accumulate(self, batch: Batch, scale: float, overlap: Overlap | None = None) -> Tensor:
        """`scale` times the summed cross entropy; its gradient is added to the adapter's. With
        `overlap`, finished gradients are sent at once: this is the step's last micro-batch.
        """
        laid: Laid = self.model.lay(batch)
        finished = None if overlap is None else overlap.finished
        return self.model.accumulate(laid, scale, self.choice.recompute, finished) * scale

    def overlap(self, buffer: Tensor) -> Overlap | None:
        """The sum of one step's gradients over the ranks; None if there is but one."""
        return Overlap(buffer, self._sizes) if self.world.size > 1 else None

    def refresh(self) -> None:
        """After each change of the adapter's values."""
        self.model.refresh()
