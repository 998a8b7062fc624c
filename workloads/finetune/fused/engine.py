"""The fused engine as the trainer uses it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from shutil import which
from typing import Any

import torch
from torch import Tensor

from ..base.settings import Settings
from ..base.world import World
from ..data.packing import Batch
from .layer import Recompute
from .memory import Choice, Extent, Placement, choose, cost_of, held_by, place
from .model import FusedModel, NotFused, check_config, outline
from .overlap import Overlap
from .sharded import ShardGroup, join_group, nodes_of

COMPILERS = ("cc", "gcc", "clang")
ADAM_BYTES = 12  # gradient and two moments in fp32, for each value of the adapter


def with_engine(settings: Settings, against: str) -> Settings:
    """`settings` with an engine in place of `auto`: fused, unless something speaks `against` it."""
    if settings.engine != "auto":
        return settings
    return replace(settings, engine="plain" if against else "fused")


def against_fused(settings: Settings, config: Any, device: torch.device) -> str:
    """What keeps `auto` from the fused engine here, for a model of this transformers `config`, if
    anything does. Who asks for fp8, or for weights that ranks hold together, wants no other.
    """
    if settings.engine != "auto" or settings.fp8 or settings.shard == "on":
        return ""
    if device.type != "cuda" or find_spec("triton") is None:
        return "no GPU that Triton has kernels for"
    if not (os.environ.get("CC") or any(map(which, COMPILERS))):
        return "no C compiler, with which Triton makes the calls of its kernels"
    if settings.dtype != "bf16" or settings.attention != "sdpa":
        return f"dtype {settings.dtype}, attention {settings.attention}; it is for bf16 and sdpa"
    if settings.lora_dropout or settings.gradient_checkpointing:
        return "dropout or gradient checkpointing, which it does not have"
    try:
        check_config(config)
    except NotFused as error:
        return str(error)
    return ""


class FusedEngine:
    """Loss and gradients of one rank. Raises :class:`fused.model.NotFused` if it cannot serve."""

    def __init__(
        self, peft_model: Any, settings: Settings, world: World, group: ShardGroup | None = None
    ) -> None:
        self.model = FusedModel(peft_model, fp8=settings.fp8, group=group)
        self.settings, self.world, self._group = settings, world, group
        self._sizes = [
            sum(p.numel() for j in layer.joined for p in (*j.a, *j.b))
            for layer in self.model.layers
        ]
        self.choice = Choice(Recompute.NONE, "nothing is computed yet")

    @property
    def description(self) -> str:
        again = self.choice.recompute.value
        kind = "fused passes in fp8" if self.settings.fp8 else "fused passes"
        if self._group is not None:
            kind += f", weights over {self._group.size} ranks ({self._group.reason})"
        return f"{kind}, computed again: {again} ({self.choice.reason})"

    @property
    def in_step(self) -> bool:
        """All ranks make the same passes, since all take part in gathering weights."""
        return self._group is not None

    def fit(self, rows: int) -> None:
        """Choose what micro-batches of so many rows compute again."""
        asked, device = self.settings.recompute, self.world.device
        if asked != "auto":
            self.choice = Choice(Recompute(asked), "asked for")
        elif device.type != "cuda":
            self.choice = Choice(Recompute.NONE, "no GPU memory to save")
        else:
            free, _ = torch.cuda.mem_get_info(device)
            held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            room = free + held - ADAM_BYTES * sum(self._sizes)
            itemsize = self.model.layers[0].qkv.storage.element_size()
            cost = cost_of(self.model.layers, itemsize)
            self.choice = choose(cost, rows * self.settings.sequence_length, room)

    def loss(self, batch: Batch) -> Tensor:
        """Summed cross entropy in nats, without gradients."""
        return self.model.loss(self.model.lay(batch))

    def accumulate(self, batch: Batch, scale: float, overlap: Overlap | None = None) -> Tensor:
        """`scale` times the summed cross entropy; its gradient is added to the adapter's. With
        `overlap`, finished gradients are sent at once: this is the step's last micro-batch.
        """
        finished = None if overlap is None else overlap.finished
        self.model.begin_pass(backward=True)  # before anything can run out of memory
        laid = self.model.lay(batch)
        return self.model.accumulate(laid, scale, self.choice.recompute, finished) * scale

    def accompany(self, *, backward: bool = False, overlap: Overlap | None = None) -> None:
        """A pass without a micro-batch, while other ranks have one."""
        finished = None if overlap is None else overlap.finished
        self.model.accompany(backward=backward, finished=finished)

    def finish_pass(self) -> None:
        """Do what other ranks wait for in a pass that failed here."""
        self.model.finish_pass()

    def overlap(self, buffer: Tensor) -> Overlap | None:
        """The sum of one step's gradients over the ranks; None if there is but one."""
        return Overlap(buffer, self._sizes) if self.world.size > 1 else None

    def refresh(self) -> None:
        """After each change of the adapter's values."""
        self.model.refresh()


def find_group(config: Any, settings: Settings, world: World) -> ShardGroup | None:
    """The ranks that hold the frozen weights of a model together; None where each holds them all.
    All ranks call it, before any of them loads the model. Raises :class:`NotFused` if the weights
    must be shared and cannot be.
    """
    if settings.engine != "fused" or settings.shard == "off":
        return None
    sizes = outline(config)
    asked = settings.shard == "on"
    if asked and world.size == 1:
        raise NotFused("--shard on with one rank alone; pass --shard off")
    if world.size == 1 or (not asked and world.device.type != "cuda"):
        return None
    nodes = nodes_of(world.gather(world.local_rank))
    ranks = {Extent.NODE: len(_node(nodes, world)), Extent.ALL: world.size}
    own = Placement(Extent.NODE if ranks[Extent.NODE] > 1 else Extent.ALL, "asked for")
    if world.device.type == "cuda":
        itemsize = 2 if settings.dtype == "bf16" else 4
        held = held_by(sizes, settings.lora_rank, settings.sequence_length, itemsize)
        room, _ = torch.cuda.mem_get_info(world.device)
        own = place(held, room, ranks, alone=not asked)
    chosen: Placement = max(world.gather(own), key=lambda placement: placement.extent)
    if chosen.extent is Extent.RANK:
        return None
    if settings.fp8:
        raise NotFused(f"weights over several ranks in fp8 ({chosen.reason}); pass --no-fp8")
    return join_group(chosen, nodes, world.rank, settings.collective_timeout)


def _node(nodes: Sequence[range], world: World) -> range:
    (own,) = (node for node in nodes if world.rank in node)
    return own
