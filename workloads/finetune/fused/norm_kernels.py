"""Norms in Triton, forward and backward; where asked for, they also round to 8 bits what they make:
a row's scale needs the whole row, and here it is at hand in registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .reference import LARGEST_E4M3, SMALLEST_SCALE, Normed, Rows8

SCALING = {"largest": LARGEST_E4M3, "smallest": SMALLEST_SCALE}


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _own_row(width: tl.tensor, block: tl.constexpr) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """A program's row, its columns, and which of these there are."""
    at = tl.arange(0, block)
    return tl.program_id(0).to(tl.int64), at, at < width


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _store_row(
    values: tl.tensor,
    out: tl.tensor,
    rows8: tl.tensor,
    scale_to: tl.tensor,
    at: tl.tensor,
    inside: tl.tensor,
    rounds: tl.constexpr,
    largest: tl.constexpr,
    smallest: tl.constexpr,
) -> None:
    """As it is; where asked for, also in 8 bits."""
    tl.store(out + at, values, mask=inside)
    if rounds:
        exact = values.to(tl.float32)
        scale = tl.maximum(tl.max(tl.abs(exact), axis=0) / largest, smallest)
        tl.store(scale_to, scale)
        tl.store(rows8 + at, (exact / scale).to(rows8.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _rms_norm(
    x: tl.tensor,
    added: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    rows8: tl.tensor,
    scales: tl.tensor,
    rstd: tl.tensor,
    x_row: tl.tensor,
    added_row: tl.tensor,
    out_row: tl.tensor,
    rows8_row: tl.tensor,
    width: tl.tensor,
    eps: tl.tensor,
    past: tl.constexpr,
    rounds: tl.constexpr,
    largest: tl.constexpr,
    smallest: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row, at, inside = _own_row(width, block)
    values = tl.load(x + row * x_row + at, mask=inside, other=0.0)
    if past:
        beside = tl.load(added + row * added_row + at, mask=inside, other=0.0)
        values = (values.to(tl.float32) + beside.to(tl.float32)).to(beside.dtype)
        tl.store(x + row * x_row + at, values, mask=inside)
    wide = values.to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(wide * wide, axis=0) / width + eps)
    tl.store(rstd + row, inverse)
    normed = (wide * inverse).to(values.dtype)
    factor = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    product = (normed.to(tl.float32) * factor).to(values.dtype)
    _store_row(
        product, out + row * out_row, rows8 + row * rows8_row, scales + row, at, inside,
        rounds, largest, smallest,
    )  # fmt: skip


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _rms_norm_backward(
    grad: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    rstd: tl.tensor,
    residual: tl.tensor,
    out: tl.tensor,
    rows8: tl.tensor,
    scales: tl.tensor,
    grad_row: tl.tensor,
    x_row: tl.tensor,
    residual_row: tl.tensor,
    out_row: tl.tensor,
    rows8_row: tl.tensor,
    width: tl.tensor,
    past: tl.constexpr,
    rounds: tl.constexpr,
    largest: tl.constexpr,
    smallest: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row, at, inside = _own_row(width, block)
    inverse = tl.load(rstd + row)
    factor = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    scaled = tl.load(grad + row * grad_row + at, mask=inside, other=0.0).to(tl.float32) * factor
    normed = tl.load(x + row * x_row + at, mask=inside, other=0.0).to(tl.float32) * inverse
    inner = tl.sum(scaled * normed, axis=0) / width
    result = (scaled - normed * inner) * inverse
    if past:
        beside = tl.load(residual + row * residual_row + at, mask=inside, other=0.0)
        result += beside.to(tl.float32)
    made = result.to(out.dtype.element_ty)
    _store_row(
        made, out + row * out_row, rows8 + row * rows8_row, scales + row, at, inside,
        rounds, largest, smallest,
    )  # fmt: skip


def rms_norm(
    total: Tensor, weight: Tensor, eps: float, out: Tensor, added: Tensor | None = None
) -> Normed:
    return _forward(total, weight, eps, out, added, None)


def rms_norm_rounded(
    total: Tensor,
    weight: Tensor,
    eps: float,
    out: Tensor,
    added: Tensor | None = None,
    *,
    spare: int = 0,
) -> tuple[Normed, Rows8]:
    rows, width = total.shape
    rounded = Rows8.empty(rows, width, spare, total.device)
    return _forward(total, weight, eps, out, added, rounded.behind(spare)), rounded


def _forward(
    total: Tensor,
    weight: Tensor,
    eps: float,
    out: Tensor,
    added: Tensor | None,
    rounded: Rows8 | None,
) -> Normed:
    rows, width = total.shape
    rstd = torch.empty(rows, dtype=torch.float32, device=total.device)
    beside = total if added is None else added
    to = (out, rstd) if rounded is None else rounded  # never written where nothing is rounded
    _rms_norm[(rows,)](
        total, beside, weight, out, *to, rstd,
        total.stride(0), beside.stride(0), out.stride(0), to[0].stride(0), width, eps,
        past=added is not None, rounds=rounded is not None, **SCALING,
        block=triton.next_power_of_2(width), num_warps=warps(width),
    )  # fmt: skip
    return Normed(total, weight, rstd)


def rms_norm_backward(grad: Tensor, normed: Normed, residual: Tensor | None, out: Tensor) -> None:
    _backward(grad, normed, residual, out, None)


def rms_norm_backward_rounded(
    grad: Tensor, normed: Normed, residual: Tensor, out: Tensor, *, spare: int = 0
) -> Rows8:
    rows, width = out.shape
    rounded = Rows8.empty(rows, width, spare, out.device)
    _backward(grad, normed, residual, out, rounded.behind(spare))
    return rounded


def _backward(
    grad: Tensor, normed: Normed, residual: Tensor | None, out: Tensor, rounded: Rows8 | None
) -> None:
    total = normed.total
    rows, width = total.shape
    beside = grad if residual is None else residual
    to = (out, normed.rstd) if rounded is None else rounded  # as above
    _rms_norm_backward[(rows,)](
        grad, total, normed.weight, normed.rstd, beside, out, *to,
        grad.stride(0), total.stride(0), beside.stride(0), out.stride(0), to[0].stride(0), width,
        past=residual is not None, rounds=rounded is not None, **SCALING,
        block=triton.next_power_of_2(width), num_warps=warps(width),
    )  # fmt: skip


def warps(columns: int) -> int:
    """Enough threads for eight values each, within what a program may have."""
    found: int = min(max(triton.next_power_of_2(columns) // 256, 1), 16)
    return found
