"""How much is kept for the backward pass and held besides, and whether that fits. Pure."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

from .layer import Form, Layer, Recompute

MARGIN = 0.08  # of the room: what allocators round up, and what kernels work in
TRAINED_BYTES = 16  # value, gradient and two moments in fp32, for each value of the adapter
ROOMS = 2  # layers whose frozen weights are there at one time where they are sharded


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes for each token of a micro-batch."""

    kept: dict[Recompute, int]  # by all layers, from their forward to their backward pass
    working: int  # by the one layer that is being computed

    def times(self, layers: int, itemsize: int) -> Cost:
        """Of so many layers, of which one is computed at a time."""
        kept = {mode: layers * itemsize * value for mode, value in self.kept.items()}
        return Cost(kept, itemsize * self.working)


@dataclass(frozen=True, slots=True)
class Choice:
    """What is computed again, and why."""

    recompute: Recompute
    reason: str


def cost_of(layers: list[Layer], itemsize: int) -> Cost:
    """From the layers' widths."""
    first = layers[0]
    wide = first.gate_up.out_width + first.gate_up.spare
    thin = sum(joined.thin for joined in first.joined)
    return _values(first.form, first.down.out_width, wide, thin).times(len(layers), itemsize)


def _values(form: Form, hidden: int, wide: int, thin: int) -> Cost:
    """Numbers instead of bytes, for one layer."""
    # Two streams; q, k, v; mixed; h's.
    rest = 2 * hidden + form.qkv + form.heads * form.depth + thin
    return Cost(
        kept={
            Recompute.NONE: rest + wide,
            Recompute.MLP: rest,
            Recompute.LAYER: hidden,
        },
        working=rest + 2 * wide + form.ffn + 4 * hidden,
    )


def choose(cost: Cost, tokens: int, room: int) -> Choice:
    """The least recomputation with which a micro-batch of `tokens` fits into `room` bytes; the most
    where none does, since an estimate may be wrong.
    """
    needed = {mode: tokens * (cost.kept[mode] + cost.working) for mode in Recompute}
    fitting = [mode for mode, size in needed.items() if size <= room * (1 - MARGIN)]
    mode = fitting[0] if fitting else Recompute.LAYER
    taken = f"{tokens} tokens take {needed[mode] / 1e9:.1f} GB of {room / 1e9:.1f} GB that are free"
    return Choice(mode, taken)


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes of a model in training that must be somewhere, whatever is computed again."""

    layers: int  # how many
    layer: int  # the storages of one: frozen matrices, and the adapter beside them
    whole: int  # on each rank: embedding, head, norms; the adapter, its gradient and moments
    row: int  # what a row keeps and works in if all is computed again

    def on_one_of(self, ranks: int) -> int:
        """Bytes on each of so many ranks that share the layers."""
        frozen = self.layers * self.layer
        shared = frozen if ranks == 1 else math.ceil(frozen / ranks) + ROOMS * self.layer
        return shared + self.whole + self.row


@dataclass(frozen=True, slots=True)
class Outline:
    """The sizes of a model, before it is loaded; `tied`: its head is its embedding."""

    form: Form
    layers: int
    hidden: int
    vocabulary: int
    tied: bool


def held_by(outline: Outline, rank: int, row_tokens: int, itemsize: int) -> Held:
    """With adapters of rank `rank` on every projection, and rows of `row_tokens`."""
    form, hidden = outline.form, outline.hidden
    # Inner and outer width of each joined storage, and how many projections it has.
    storages = (
        (hidden, form.qkv, 3),
        (form.heads * form.depth, hidden, 1),
        (hidden, 2 * form.ffn, 2),
        (form.ffn, hidden, 1),
    )
    thin = rank * sum(count for *_, count in storages)
    layer = sum((wide + rank * n) * (out + rank * n) for wide, out, n in storages)
    adapter = outline.layers * rank * sum(wide * n + out for wide, out, n in storages)
    norms = (2 * outline.layers + 1) * hidden
    tables = (1 if outline.tied else 2) * outline.vocabulary * hidden
    cost = _values(form, hidden, 2 * (form.ffn + rank), thin).times(outline.layers, itemsize)
    return Held(
        layers=outline.layers,
        layer=layer * itemsize,
        whole=(tables + norms) * itemsize + adapter * TRAINED_BYTES,
        row=row_tokens * (cost.kept[Recompute.LAYER] + cost.working),
    )


class Extent(enum.IntEnum):
    """Which ranks hold the frozen weights together."""

    RANK = 1  # each by itself
    NODE = 2
    ALL = 3


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the frozen weights lie, and why."""

    extent: Extent
    reason: str


def place(held: Held, room: int, sizes: Mapping[Extent, int], *, alone: bool) -> Placement:
    """The fewest ranks that hold all in `room` bytes each; the most where none do, since an
    estimate may be wrong. `sizes` are the numbers of ranks; `alone`: one may hold it all.
    """
    own = f"{held.on_one_of(1) / 1e9:.1f} GB on one rank"
    free = f"{room / 1e9:.1f} GB that are free"
    if alone and held.on_one_of(1) <= room * (1 - MARGIN):
        return Placement(Extent.RANK, f"{own} of {free}")
    fitting = [
        extent
        for extent in (Extent.NODE, Extent.ALL)
        if sizes[extent] > 1 and held.on_one_of(sizes[extent]) <= room * (1 - MARGIN)
    ]
    most = Extent.NODE if sizes[Extent.NODE] == sizes[Extent.ALL] else Extent.ALL
    extent = fitting[0] if fitting else most
    ranks = sizes[extent]
    each = f"{held.on_one_of(ranks) / 1e9:.1f} GB on each of {ranks}"
    return Placement(extent, f"{own}, {each}, of {free}")
