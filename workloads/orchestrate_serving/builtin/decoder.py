"""One step of the decoder over a key-value cache of fixed slots: prompts, then token by token."""

from __future__ import annotations

import torch
from torch.nn import functional

from .weights import LayerWeights, Shape, Weights


class Cache:
    """Keys and values of every slot: (layers, slots, kv_heads, length, head_size) each.

    Rows of a step whose slot nobody uses write to the last position, which nobody reads.
    """

    def __init__(self, weights: Weights, slots: int, length: int) -> None:
        shape = weights.shape
        size = (shape.layers, slots, shape.kv_heads, length, shape.head_size)
        self.keys = torch.zeros(size, dtype=weights.dtype, device=weights.device)
        self.values = torch.zeros_like(self.keys)

    @property
    def slots(self) -> int:
        return self.keys.shape[1]

    @property
    def length(self) -> int:
        return self.keys.shape[3]


def cache_bytes_per_token(shape: Shape, dtype: torch.dtype) -> int:
    """Bytes that one token of one slot takes in the cache."""
    return 2 * shape.layers * shape.kv_heads * shape.head_size * dtype.itemsize


Kept = tuple[torch.Tensor, torch.Tensor]


def prefill(
    weights: Weights,
    cache: Cache,
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    slots: torch.Tensor,
    *,
    kept: Kept | None = None,
) -> torch.Tensor:
    """Logits (rows, vocabulary) after each prompt; its keys and values are in its slot then.

    ``tokens`` are (rows, width), padded on the right: a token attends to those before it alone,
    so padding changes nothing, and what it leaves in the cache is overwritten before it is read.
    ``kept``: row and place of each token that is no padding, row by row; then only these pass
    through everything but attention.
    """
    shape, width = tokens.shape, tokens.shape[1]
    cos, sin = weights.cos[:width, None], weights.sin[:width, None]
    if kept is not None:
        tokens = tokens[kept]
        cos, sin = weights.cos[kept[1], None], weights.sin[kept[1], None]
    hidden = functional.embedding(tokens, weights.embedding)
    for place, layer in enumerate(weights.layers):
        queries, keys, values = _project(weights, layer, hidden)
        queries, keys = _rotate(queries, cos, sin), _rotate(keys, cos, sin)
        if kept is not None:
            queries, keys, values = (_padded(each, kept, shape) for each in (queries, keys, values))
        keys, values = keys.transpose(1, 2), values.transpose(1, 2)
        cache.keys[place][slots, :, :width] = keys
        cache.values[place][slots, :, :width] = values
        mixed = functional.scaled_dot_product_attention(
            queries.transpose(1, 2), keys, values, is_causal=True, enable_gqa=True
        )
        mixed = mixed.transpose(1, 2).flatten(2)
        hidden = _finish_layer(weights, layer, hidden, mixed if kept is None else mixed[kept])
    if kept is not None:
        return _logits(weights, hidden[lengths.cumsum(0) - 1])
    last = hidden[torch.arange(len(tokens), device=tokens.device), lengths - 1]
    return _logits(weights, last)


def _padded(values: torch.Tensor, kept: Kept, shape: torch.Size) -> torch.Tensor:
    """(tokens, heads, head_size) as (rows, width, heads, head_size), with zeros as padding."""
    padded = values.new_zeros(*shape, *values.shape[1:])
    padded[kept] = values
    return padded


def decode(
    weights: Weights, cache: Cache, tokens: torch.Tensor, positions: torch.Tensor, used: int
) -> torch.Tensor:
    """Logits (rows, vocabulary) after one more token of slots 0 to rows - 1.

    ``positions`` (rows,) is where each token stands; what lies from ``used`` on is not read.
    """
    rows = torch.arange(len(tokens), device=tokens.device)
    within = positions.clamp(max=len(weights.cos) - 1)
    cos, sin = weights.cos[within, None], weights.sin[within, None]
    seen = torch.arange(used, device=tokens.device) <= positions[:, None]
    hidden = functional.embedding(tokens, weights.embedding)
    for place, layer in enumerate(weights.layers):
        queries, keys, values = _project(weights, layer, hidden)
        queries, keys = _rotate(queries, cos, sin), _rotate(keys, cos, sin)
        cache.keys[place][rows, :, positions] = keys
        cache.values[place][rows, :, positions] = values
        mixed = _attend(queries, cache, place, used, seen)
        hidden = _finish_layer(weights, layer, hidden, mixed.flatten(1))
    return _logits(weights, hidden)


def _attend(
    queries: torch.Tensor, cache: Cache, place: int, used: int, seen: torch.Tensor
) -> torch.Tensor:
    """Attention of one token a row, (rows, heads, head_size) in and out. Heads that share keys
    stand where queries of several positions would, so that keys are not repeated.
    """
    rows = len(queries)
    keys, values = (each[place, :rows, :, :used] for each in (cache.keys, cache.values))
    grouped = queries.unflatten(1, (keys.shape[1], -1))
    mask = seen[:, None, None]
    mixed = functional.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
    return mixed.flatten(1, 2)


def _project(
    weights: Weights, layer: LayerWeights, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values, (..., heads, head_size) each."""
    shape = weights.shape
    normed = _norm(hidden, layer.attention_norm, shape)
    joined = functional.linear(normed, layer.qkv, layer.qkv_bias)
    heads = joined.unflatten(-1, (-1, shape.head_size))
    queries, keys, values = heads.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=-2)
    return queries, keys, values


def _finish_layer(
    weights: Weights, layer: LayerWeights, hidden: torch.Tensor, mixed: torch.Tensor
) -> torch.Tensor:
    """What follows attention: its projection, and the gated MLP."""
    hidden = hidden + functional.linear(mixed, layer.out)
    normed = _norm(hidden, layer.mlp_norm, weights.shape)
    gate, up = functional.linear(normed, layer.gate_up).chunk(2, dim=-1)
    return hidden + functional.linear(functional.silu(gate) * up, layer.down)


def _logits(weights: Weights, hidden: torch.Tensor) -> torch.Tensor:
    return functional.linear(_norm(hidden, weights.norm, weights.shape), weights.head)


def _norm(hidden: torch.Tensor, weight: torch.Tensor, shape: Shape) -> torch.Tensor:
    return functional.rms_norm(hidden, (shape.hidden,), weight, shape.epsilon)


def _rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions: the halves of a head are the two coordinates that turn."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-second, first), dim=-1) * sin
