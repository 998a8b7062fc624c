"""Causal attention within each document of a micro-batch whose rows are laid end to end.

Its backward pass is autograd's own: the graph of this one operation is kept from the forward pass
of a layer to its backward pass, which holds the queries, keys, values and outputs and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

# On Hopper cuDNN's kernels are the fastest that torch brings; the others are there for the rest.
PREFERRED = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


@dataclass(frozen=True, slots=True)
class Documents:
    """Where the documents of T tokens begin; their lengths add up to T."""

    lengths: tuple[int, ...]
    starts: Tensor  # [n + 1] int32 on the device: cumulative lengths from 0

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def even(self) -> bool:
        """Whether all are of one length, so that they are rows of a rectangle."""
        return len(set(self.lengths)) == 1


def documents(position_ids: Tensor) -> Documents:
    """From positions [1, T], on the host, that begin again at 0 with each document."""
    (positions,) = position_ids
    begins = (positions == 0).nonzero().squeeze(1).tolist()
    if not begins or begins[0] != 0:
        raise ValueError("the first token of a micro-batch must have position 0")
    ends = [*begins[1:], len(positions)]
    lengths = tuple(end - begin for begin, end in zip(begins, ends, strict=True))
    return Documents(lengths, torch.tensor([*begins, len(positions)], dtype=torch.int32))


@dataclass(frozen=True, slots=True)
class Heads:
    """Queries [T, heads, D], keys and values [T, kv heads, D]."""

    queries: Tensor
    keys: Tensor
    values: Tensor

    @property
    def all(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.queries, self.keys, self.values


@dataclass(slots=True)
class Attended:
    """One attention: `out` [T, heads x D], and what its backward pass needs."""

    out: Tensor
    _inputs: Heads
    _graph: Tensor

    def backward(self, grad: Tensor) -> Heads:
        """The gradients of queries, keys and values; can be asked for once."""
        wanted = grad.view_as(self._graph)
        return Heads(*torch.autograd.grad(self._graph, self._inputs.all, wanted))


def attend(heads: Heads, where: Documents, scale: float, *, keep: bool) -> Attended:
    """Each token's attention to those before it in its document. Without `keep` there is no
    backward pass.
    """
    inputs = Heads(*(tensor.detach().requires_grad_(keep) for tensor in heads.all))
    with torch.set_grad_enabled(keep):
        out = _kernel(inputs, where)(inputs, where, scale)
    return Attended(out.detach().flatten(1), inputs, out)


Kernel = Callable[[Heads, Documents, float], Tensor]


def _kernel(heads: Heads, where: Documents) -> Kernel:
    if where.even:
        return _even
    half = heads.queries.dtype in (torch.bfloat16, torch.float16)
    return _varlen if half and heads.queries.device.type == "cuda" else _one_by_one


def _even(heads: Heads, where: Documents, scale: float) -> Tensor:
    """All documents as the rows of one batch."""
    shape = (len(where.lengths), where.longest)
    queries, keys, values = (t.unflatten(0, shape).transpose(1, 2) for t in heads.all)
    grouped = queries.shape[1] != keys.shape[1]
    with sdpa_kernel(PREFERRED, set_priority=True):
        out = functional.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, scale=scale, enable_gqa=grouped
        )
    return out.transpose(1, 2).flatten(0, 1)


def _varlen(heads: Heads, where: Documents, scale: float) -> Tensor:
    """Documents of different lengths, by flash attention."""
    bounds = (where.starts, where.starts, where.longest, where.longest)
    flash = torch.ops.aten._flash_attention_forward  # noqa: SLF001 - has no public name yet
    out: Tensor = flash(*heads.all, *bounds, 0.0, True, False, scale=scale)[0]
    return out


def _one_by_one(heads: Heads, where: Documents, scale: float) -> Tensor:
    """Documents of different lengths, where no kernel takes them together."""
    lengths = list(where.lengths)
    pieces = zip(*(tensor.split(lengths) for tensor in heads.all), strict=True)
    outs = [
        _even(Heads(*piece), Documents((length,), where.starts), scale)
        for length, piece in zip(lengths, pieces, strict=True)
    ]
    return torch.cat(outs)
