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
    fp32, by which they are to be multiplied. There may be spare columns before the n, which nobody
    has written until `extend_rows` does.
    """

    values: Tensor
    scales: Tensor

    @classmethod
    def empty(cls, rows: int, width: int, spare: int, device: torch.device) -> Rows8:
        """Nothing is written yet."""
        kind = torch.float8_e4m3fn
        values = torch.empty(rows, spare + width, dtype=kind, device=device)
        return cls(values, torch.empty(rows, dtype=torch.float32, device=device))

    def behind(self, spare: int) -> Rows8:
        """A view of what comes after the `spare` columns."""
        return Rows8(self.values[:, spare:], self.scales)


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


def swiglu(gate_up: Tensor, out: Tensor) -> None:
    """`out` [T, f] = silu(gate) * up, where `gate_up` [T, 2 f] holds the two side by side."""
    gate, up = gate_up.chunk(2, dim=-1)
    out.copy_(functional.silu(gate.float()).to(out.dtype) * up)


def swiglu_backward(grad: Tensor, gate_up: Tensor) -> None:
    """Both in place: `gate_up` [T, 2 f] becomes its gradient, `grad` [T, f] the product again."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    wide = grad.float()
    sigmoid = torch.sigmoid(gate)
    silu = gate * sigmoid
    product, of_up = silu * up, wide * silu
    of_gate = wide * up * sigmoid * (1 + gate * (1 - sigmoid))
    grad.copy_(product)
    gate_up.copy_(torch.cat([of_gate, of_up], dim=-1))


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


def quantise_rows(x: Tensor, *, spare: int = 0) -> Rows8:
    """`x` [T, d] in 8 bits, with `spare` columns: each row uses the whole range."""
    count, width = x.shape
    rows = Rows8.empty(count, width, spare, x.device)
    wide = x.float()
    rows.scales.copy_((wide.abs().amax(-1) / LARGEST_E4M3).clamp(min=SMALLEST_SCALE))
    rows.values[:, spare:] = (wide / rows.scales[:, None]).to(torch.float8_e4m3fn)
    return rows


def extend_rows(
    rows: Rows8, x: Tensor, thin: Tensor, factor: float, least: Tensor | None = None
) -> None:
    """`rows` [T, s + d], which are those of `x` [T, d], become those of [factor thin | 0 | x], with
    `thin` [T, r]. A row in which x has not the largest value is rounded once more, as a whole.

    With `least` [T], the scales of x alone, `rows` may have been extended before.
    """
    added = thin.float() * factor
    of_x = rows.scales if least is None else least
    scales = torch.maximum(of_x, added.abs().amax(-1) / LARGEST_E4M3)
    whole = functional.pad(added, (0, rows.values.shape[1] - x.shape[1] - thin.shape[1]))
    whole = torch.cat([whole, x.float()], dim=-1)
    rows.values.copy_((whole / scales[:, None]).to(torch.float8_e4m3fn))
    rows.scales.copy_(scales)


def rms_norm_rounded(
    total: Tensor,
    weight: Tensor,
    eps: float,
    out: Tensor,
    added: Tensor | None = None,
    *,
    spare: int = 0,
) -> tuple[Normed, Rows8]:
    """`rms_norm`, and `out` in 8 bits."""
    normed = rms_norm(total, weight, eps, out, added)
    return normed, quantise_rows(out, spare=spare)


def rms_norm_backward_rounded(
    grad: Tensor, normed: Normed, residual: Tensor, out: Tensor, *, spare: int = 0
) -> Rows8:
    """`rms_norm_backward`, and `out` in 8 bits."""
    rms_norm_backward(grad, normed, residual, out)
    return quantise_rows(out, spare=spare)


def swiglu_rounded(gate_up: Tensor, out: Tensor, *, spare: int = 0) -> Rows8:
    """`swiglu`, and `out` in 8 bits."""
    swiglu(gate_up, out)
    return quantise_rows(out, spare=spare)


def swiglu_backward_rounded(grad: Tensor, gate_up: Tensor, *, spare: int = 0) -> Rows8:
    """`swiglu_backward`, and the gradient of gate and up in 8 bits."""
    swiglu_backward(grad, gate_up)
    return quantise_rows(gate_up, spare=spare)


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
