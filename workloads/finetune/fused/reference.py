"""The element-wise operations in plain torch: what the kernels have to agree with, and what runs
where there is no GPU.

All tensors are two-dimensional with a contiguous last dimension; rows may lie apart, which is how
room for an adapter's columns is left beside them. T is the number of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Normed:
    """What is kept of a norm: its input [T, d], its frozen weight [d], and 1/rms [T] in fp32."""

    total: Tensor
    weight: Tensor
    rstd: Tensor


class Rows8(NamedTuple):
    """A matrix in 8 bits: `values` [T, n] as float8_e4m3fn, and the `scales` [T] of its rows in
    fp32, by which they are to be multiplied.
    """

    values: Tensor
    scales: Tensor


@dataclass(frozen=True, slots=True)
class LowRank:
    """What is still to be added to a tensor [T, n f]: `thin` [T, n r], part by part times the
    `factors`, n of them, each [f, r] in any order of its values.
    """

    thin: Tensor
    factors: tuple[Tensor, ...]

    def product(self) -> Tensor:
        """[T, n f] in fp32."""
        parts = self.thin.float().chunk(len(self.factors), dim=1)
        return torch.cat(
            [part @ f.float().t() for part, f in zip(parts, self.factors, strict=True)], dim=1
        )


def rms_norm(
    total: Tensor, weight: Tensor, eps: float, out: Tensor, added: Tensor | None = None
) -> Normed:
    """`out` [T, d] = the norm of `total` [T, d] times `weight` [d]. What is `added` [T, d] is added
    to `total` first, in place.

    As in transformers: statistics in fp32, rounded to the model's type before the weight.
    """
    if added is not None:
        total += added
    normed = Normed(total, weight, torch.rsqrt(total.float().square().mean(-1) + eps))
    scaled = total.float() * normed.rstd[:, None]
    out.copy_(weight * scaled.to(total.dtype))
    return normed


def rms_norm_backward(grad: Tensor, normed: Normed, residual: Tensor | None, out: Tensor) -> None:
    """`out` [T, d] = gradient of the norm's input, plus `residual` [T, d], the gradient that comes
    past the norm, if any.
    """
    scaled = grad.float() * normed.weight.float()
    unit = normed.total.float() * normed.rstd[:, None]
    inner = (scaled * unit).mean(-1, keepdim=True)
    own = (scaled - unit * inner) * normed.rstd[:, None]
    out.copy_(own if residual is None else residual.float() + own)


def swiglu(gate_up: Tensor, out: Tensor, missing: LowRank | None = None) -> None:
    """`out` [T, f] = silu(gate) * up, where `gate_up` [T, 2 f] and what is `missing` from it hold
    the two side by side.
    """
    gate, up = _completed(gate_up, missing).chunk(2, dim=-1)
    out.copy_(functional.silu(gate).to(out.dtype) * up.to(out.dtype))


def swiglu_backward(
    grad: Tensor,
    gate_up: Tensor,
    missing: LowRank | None = None,
    of_gate_up: LowRank | None = None,
) -> None:
    """Both in place: `gate_up` [T, 2 f] becomes its gradient, `grad` [T, f] the product again; what
    is `missing` from the gradient, and what `of_gate_up` is, are to be added first. There is none
    of them, or there are both.
    """
    gate, up = _completed(gate_up, of_gate_up).chunk(2, dim=-1)
    wide = _completed(grad, missing)
    sigmoid = torch.sigmoid(gate)
    silu = gate * sigmoid
    product, of_up = silu * up, wide * silu
    of_gate = wide * up * sigmoid * (1 + gate * (1 - sigmoid))
    grad.copy_(product)
    gate_up.copy_(torch.cat([of_gate, of_up], dim=-1))


def _completed(tensor: Tensor, missing: LowRank | None) -> Tensor:
    """In fp32."""
    return tensor.float() if missing is None else tensor.float() + missing.product()


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, inverse: bool, out: Tensor) -> None:
    """Rotary embedding of `x` [T, heads x D] into `out`, which may be `x`; `cos` and `sin` are
    [T, D], halves repeated, as transformers makes them. `inverse` turns back: the gradient's way.
    """
    tokens, depth = cos.shape
    heads = x.reshape(tokens, -1, depth)
    first, second = heads.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    sine = -sin if inverse else sin
    out.copy_((heads * cos[:, None] + turned * sine[:, None]).reshape(tokens, -1))


LARGEST_E4M3 = 448.0  # of torch.float8_e4m3fn
SMALLEST_SCALE = 1e-12  # a row of zeros stays one


def quantise_rows(x: Tensor) -> Rows8:
    """`x` [T, d] in 8 bits: each row uses the whole range."""
    wide = x.float()
    scales = (wide.abs().amax(-1) / LARGEST_E4M3).clamp(min=SMALLEST_SCALE)
    return Rows8((wide / scales[:, None]).to(torch.float8_e4m3fn), scales)


def rms_norm_rounded(
    total: Tensor, weight: Tensor, eps: float, out: Tensor, added: Tensor | None = None
) -> tuple[Normed, Rows8]:
    """`rms_norm`, and `out` in 8 bits."""
    normed = rms_norm(total, weight, eps, out, added)
    return normed, quantise_rows(out)


def rms_norm_backward_rounded(grad: Tensor, normed: Normed, residual: Tensor, out: Tensor) -> Rows8:
    """`rms_norm_backward`, and `out` in 8 bits."""
    rms_norm_backward(grad, normed, residual, out)
    return quantise_rows(out)


def cross_entropy_(
    logits: Tensor, labels: Tensor, scale: float, *, less_labels: bool = True
) -> Tensor:
    """Sum of the cross entropies of `logits` [n, V] for `labels` [n], in nats, a scalar in fp32;
    `logits` become the gradient of `scale` times that sum. Without `less_labels` they become its
    first part, `scale` times the probabilities.
    """
    wide = logits.float()
    normaliser = wide.logsumexp(-1, keepdim=True)
    loss = (normaliser - wide.gather(1, labels[:, None])).sum()
    gradient = (wide - normaliser).exp_()
    if less_labels:
        gradient.scatter_add_(1, labels[:, None], torch.full_like(normaliser, -1.0))
    logits.copy_(gradient.mul_(scale))
    return loss
