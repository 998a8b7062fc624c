"""The output layer and its loss, in chunks: logits of a vocabulary never exist for all tokens.

The output layer is frozen, so the gradient of its input can be made at once, chunk by chunk, and
nothing of a chunk is kept (the idea of linear cross entropy, arXiv 2410.10989 and 2411.09009).
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

CHUNK_BYTES = 1 << 30  # of logits


def chunk_rows(vocabulary: int, itemsize: int, limit: int = CHUNK_BYTES) -> int:
    """How many tokens' logits make a chunk; full tiles of a matrix product where there is room."""
    rows = max(1, limit // (vocabulary * itemsize))
    return rows - rows % 128 if rows > 128 else rows


def linear_cross_entropy(
    ops: ModuleType, hidden: Tensor, weight: Tensor, labels: Tensor, scale: float, *, grad: bool
) -> Tensor:
    """Sum of cross entropies in nats (fp32 scalar) of `hidden` [n, d] `weight`ᵀ [d, V] for `labels`
    [n]. With `grad`, `hidden` becomes the gradient of `scale` times that sum.
    """
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    size = chunk_rows(weight.shape[0], hidden.element_size())
    for part, wanted in zip(hidden.split(size), labels.split(size), strict=True):
        logits = torch.mm(part, weight.t())
        total += ops.cross_entropy_(logits, wanted, scale)
        if grad:
            torch.mm(logits, weight, out=part)
    return total
