"""Frozen weights that no single rank holds: each has an equal block of every layer, and a layer is
put together where and when it is computed.

As in ZeRO-3 and FSDP (arXiv 1910.02054, 2304.11277), but only for what is never trained: there are
no gradients or moments to share. A layer's four storages lie one behind another in a flat buffer of
which rank i keeps block i. All blocks are gathered into one of two rooms, layer i's into room i
modulo 2, while the layer before it computes in the other. A room's tensors are the storages that
layers of its parity see, now and always, so what is gathered is simply there.

    forward    compute  0      1      2      3          backward    3      2      1      0
               gather   1      2      3                             -      1      0      -

The adapter's columns and rows of a storage are filled in after the gather, from values that are
whole on each rank.

A gather needs all ranks of the group, so they make the same passes over the layers in the same
order; one that has no micro-batch makes an empty pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from math import prod

import torch.distributed as dist
from torch import Tensor

from .fused_projection import FusedProjection, Part, shape_of
from .memory import ROOMS, Extent, Placement

ALIGNMENT = 128  # values: where a storage may begin, for the widest loads of any kernel


@dataclass(frozen=True, slots=True)
class ShardGroup:
    """The ranks that hold the frozen weights together."""

    rank: int  # of this process, among them
    size: int
    handle: dist.ProcessGroup | None  # None: all ranks
    reason: str


def nodes_of(local_ranks: Sequence[int]) -> list[range]:
    """The ranks of each node, from the local rank of every rank."""
    begins = [rank for rank, local in enumerate(local_ranks) if local == 0]
    return [range(*ends) for ends in zip(begins, [*begins[1:], len(local_ranks)], strict=True)]


def join_group(
    placement: Placement, nodes: Sequence[range], rank: int, timeout_s: int
) -> ShardGroup:
    """All ranks call it, with the same placement on more than one rank."""
    if placement.extent is Extent.ALL or len(nodes) == 1:
        return ShardGroup(rank, sum(map(len, nodes)), None, placement.reason)
    timeout = timedelta(seconds=timeout_s)
    # All ranks take part in making each group.
    handles = [dist.new_group(list(node), timeout=timeout) for node in nodes]
    ((own, handle),) = [pair for pair in zip(nodes, handles, strict=True) if rank in pair[0]]
    return ShardGroup(own.index(rank), len(own), handle, placement.reason)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where storages of these shapes begin in a flat buffer of `ranks` equal blocks."""

    shapes: tuple[tuple[int, int], ...]
    ranks: int

    @property
    def starts(self) -> list[int]:
        return [0, *accumulate(_aligned(prod(shape)) for shape in self.shapes)][:-1]

    @property
    def block(self) -> int:
        """Values of one block."""
        total = sum(_aligned(prod(shape)) for shape in self.shapes)
        return _aligned(-(-total // self.ranks))

    def storages(self, buffer: Tensor) -> list[Tensor]:
        """Views of a buffer [ranks x block]."""
        return [
            buffer[start : start + prod(shape)].view(shape)
            for start, shape in zip(self.starts, self.shapes, strict=True)
        ]

    def block_of(self, rank: int, parts: Sequence[Sequence[Part]], like: Tensor) -> Tensor:
        """A rank's block, from the frozen weights of each storage. Of these only the rows that are
        in it are read, since they may be far away.
        """
        out = like.new_zeros(self.block)
        for start, (_, width), own in zip(self.starts, self.shapes, parts, strict=True):
            row = start - rank * self.block  # where the storage's next row begins in the block
            for part in own:
                _copy_rows(part.weight, out, row, width)
                row += width * part.weight.shape[0]
        return out


@dataclass(slots=True)
class _Room:
    buffer: Tensor
    layer: int | None = None
    gather: dist.Work | None = None  # under way
    fresh: bool = False  # the adapter's values are those that the rank has


class Shards:
    """This rank's blocks of all layers, and the rooms in which layers are put together; of the type
    of `like`, and on its device.
    """

    def __init__(self, group: ShardGroup, like: Tensor) -> None:
        self.blocks: list[Tensor] = []
        self._group, self._like = group, like
        self._layout: Layout | None = None
        self._rooms: list[_Room] = []
        self._joined: list[list[FusedProjection]] = []

    def add(self, parts: Sequence[Sequence[Part]]) -> list[FusedProjection]:
        """One more layer, whose storages see what is gathered. Raises `ValueError` if it does not
        have the shapes of the others.
        """
        layout = Layout(tuple(shape_of(own) for own in parts), self._group.size)
        if self._layout not in (None, layout):
            raise ValueError("layers of several shapes")
        self._layout = layout
        if len(self._rooms) < ROOMS:
            self._rooms.append(_Room(self._like.new_zeros(layout.block * self._group.size)))
        room = self._rooms[len(self.blocks) % ROOMS]
        self.blocks.append(layout.block_of(self._group.rank, parts, self._like))
        storages = layout.storages(room.buffer)
        joined = [FusedProjection(own, place) for own, place in zip(parts, storages, strict=True)]
        self._joined.append(joined)
        return joined

    def enter(self, layer: int, following: int) -> None:
        """Have `layer` there for what is computed next, and begin to gather the `following` one, if
        there is one. What was computed before must be under way already.
        """
        room = self._gather(layer)
        if 0 <= following < len(self.blocks):
            self._gather(following)
        if room.gather is not None:
            room.gather.wait()
            room.gather = None
        if not room.fresh:
            for joined in self._joined[layer]:
                joined.refresh()
            room.fresh = True

    def stale(self) -> None:
        """The adapter's values have changed."""
        for room in self._rooms:
            room.fresh = False

    def _gather(self, layer: int) -> _Room:
        """The layer's room, into which it comes unless it is there."""
        room = self._rooms[layer % ROOMS]
        if room.layer != layer:
            assert room.gather is None, "a layer was gathered that nobody entered"
            room.gather = dist.all_gather_into_tensor(
                room.buffer, self.blocks[layer], group=self._group.handle, async_op=True
            )
            room.layer, room.fresh = layer, False
        return room


def _aligned(values: int) -> int:
    return -(-values // ALIGNMENT) * ALIGNMENT


def _copy_rows(weight: Tensor, block: Tensor, begin: int, width: int) -> None:
    """Copy what `block` holds of the rows of `weight`, of which the first would begin at `begin`
    and each at `width` after the one before.
    """
    first = max(0, -begin // width)
    last = min(len(weight), -(-(len(block) - begin) // width))
    if first >= last:
        return
    rows = block.new_zeros(last - first, width)
    rows[:, : weight.shape[1]] = weight[first:last].to(block.device)
    low = begin + first * width
    cut = max(0, -low)
    piece = rows.flatten()[cut : len(block) - low]
    block[low + cut : low + cut + len(piece)] = piece
