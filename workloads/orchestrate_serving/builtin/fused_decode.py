"""The decode step on CUDA with Triton's kernels: the same result as :func:`decoder.decode`."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from .decoder import Cache
from .kernels import add_norm, attend, rotate_and_store, row_product, swiglu
from .options import Tile
from .weights import Weights


def decode(
    weights: Weights, cache: Cache, tokens: Tensor, positions: Tensor, tile: Tile | None
) -> Tensor:
    """Logits (rows, vocabulary) after one more token of slots 0 to rows - 1.

    ``positions`` (rows,) is where each token stands. A single row is multiplied by our own kernel,
    cut by ``tile``; None leaves it to cuBLAS, as several rows are.
    """

    def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if tile is None or len(x) > 1:
            return functional.linear(x, weight, bias)
        return row_product(x, weight, bias, tile)

    epsilon = weights.shape.epsilon
    hidden = functional.embedding(tokens, weights.embedding)
    delta: Tensor | None = None
    for place, layer in enumerate(weights.layers):
        keys, values = cache.keys[place], cache.values[place]
        joined = product(
            add_norm(hidden, delta, layer.attention_norm, epsilon), layer.qkv, layer.qkv_bias
        )
        queries = rotate_and_store(joined, weights.cos, weights.sin, positions, keys, values)
        mixed = attend(queries, keys, values, positions)
        delta = product(mixed.flatten(1), layer.out)
        normed = add_norm(hidden, delta, layer.mlp_norm, epsilon)
        delta = product(swiglu(product(normed, layer.gate_up)), layer.down)
    return product(add_norm(hidden, delta, weights.norm, epsilon), weights.head)
