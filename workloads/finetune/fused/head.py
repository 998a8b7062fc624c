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


class Head:
    """The frozen output layer, `weight` [V, d]."""

    whole_gradient = True  # `input_gradient` takes that of the logits, not the probabilities

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, V] of `hidden` [n, d]."""
        return torch.mm(hidden, self.weight.t())

    def input_gradient(self, grad: Tensor, labels: Tensor, scale: float, out: Tensor) -> None:  # noqa: ARG002 - see HeadFp8
        """`out` [n, d] from what `cross_entropy_` made of the logits [n, V]."""
        torch.mm(grad, self.weight, out=out)


def linear_cross_entropy(
    ops: ModuleType, hidden: Tensor, head: Head, labels: Tensor, scale: float, *, grad: bool
) -> Tensor:
    """Sum of cross entropies in nats (fp32 scalar) of the head's logits of `hidden` [n, d] for
    `labels` [n]. With `grad`, `hidden` becomes the gradient of `scale` times that sum.
    """
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    size = chunk_rows(head.weight.shape[0], hidden.element_size())
    for part, wanted in zip(hidden.split(size), labels.split(size), strict=True):
        logits = head.logits(part)
        total += ops.cross_entropy_(logits, wanted, scale, less_labels=head.whole_gradient)
        if grad:
            head.input_gradient(logits, wanted, scale, part)
    return total
