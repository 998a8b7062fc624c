"""How much is kept for the backward pass, and whether that fits. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from fused.layer import Layer, Recompute

MARGIN = 0.08  # of the room: what allocators round up, and what kernels work in


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes for each token of a micro-batch."""

    kept: dict[Recompute, int]  # by all layers, from their forward to their backward pass
    working: int  # by the one layer that is being computed


@dataclass(frozen=True, slots=True)
class Choice:
    """What is computed again, and why."""

    recompute: Recompute
    reason: str


def cost_of(layers: list[Layer], itemsize: int) -> Cost:
    """From the layers' widths."""
    first, form = layers[0], layers[0].form
    hidden, heads = first.down.out_width, form.heads * form.depth
    wide = first.gate_up.out_width + first.gate_up.spare
    thin = sum(joined.thin for joined in first.joined)
    rest = 2 * hidden + first.qkv.out_width + heads + thin  # two streams; q, k, v; mixed; h's
    count = len(layers) * itemsize
    return Cost(
        kept={
            Recompute.NONE: count * (rest + wide),
            Recompute.MLP: count * rest,
            Recompute.LAYER: count * hidden,
        },
        working=itemsize * (rest + 2 * wide + first.down.width + 4 * hidden),
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
