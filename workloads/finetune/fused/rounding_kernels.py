"""Norms that also round to 8 bits what they make, in Triton: a row's scale needs the whole row, and
here it is at hand in registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .reference import LARGEST_E4M3, SMALLEST_SCALE, Normed, Rows8


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _scale_of(values: tl.tensor, largest: tl.constexpr, smallest: tl.constexpr) -> tl.tensor:
    return tl.maximum(tl.max(tl.abs(values), axis=0) / largest, smallest)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _rms_norm_rounded(
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
    width: tl.tensor,
    eps: tl.tensor,
    past: tl.constexpr,
    largest: tl.constexpr,
    smallest: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    values = tl.load(x + row * x_row + at, mask=inside, other=0.0)
    kind = values.dtype
    if past:
        beside = tl.load(added + row * added_row + at, mask=inside, other=0.0)
        values = (values.to(tl.float32) + beside.to(tl.float32)).to(kind)
        tl.store(x + row * x_row + at, values, mask=inside)
    wide = values.to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(wide * wide, axis=0) / width + eps)
    tl.store(rstd + row, inverse)
    normed = (wide * inverse).to(kind)
    factor = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    product = (normed.to(tl.float32) * factor).to(kind)
    tl.store(out + row * out_row + at, product, mask=inside)
    exact = product.to(tl.float32)
    scale = _scale_of(exact, largest, smallest)
    tl.store(scales + row, scale)
    tl.store(rows8 + row * width + at, (exact / scale).to(rows8.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _rms_norm_backward_rounded(
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
    width: tl.tensor,
    largest: tl.constexpr,
    smallest: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    inverse = tl.load(rstd + row)
    factor = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    scaled = tl.load(grad + row * grad_row + at, mask=inside, other=0.0).to(tl.float32) * factor
    normed = tl.load(x + row * x_row + at, mask=inside, other=0.0).to(tl.float32) * inverse
    inner = tl.sum(scaled * normed, axis=0) / width
    beside = tl.load(residual + row * residual_row + at, mask=inside, other=0.0).to(tl.float32)
    result = ((scaled - normed * inner) * inverse + beside).to(out.dtype.element_ty)
    tl.store(out + row * out_row + at, result, mask=inside)
    exact = result.to(tl.float32)
    scale = _scale_of(exact, largest, smallest)
    tl.store(scales + row, scale)
    tl.store(rows8 + row * width + at, (exact / scale).to(rows8.dtype.element_ty), mask=inside)


def _room(rows: int, width: int, like: Tensor) -> Rows8:
    return Rows8(
        torch.empty(rows, width, dtype=torch.float8_e4m3fn, device=like.device),
        torch.empty(rows, dtype=torch.float32, device=like.device),
    )


def _warps(columns: int) -> int:
    warps: int = min(max(triton.next_power_of_2(columns) // 256, 1), 16)
    return warps


def rms_norm_rounded(
    total: Tensor, weight: Tensor, eps: float, out: Tensor, added: Tensor | None = None
) -> tuple[Normed, Rows8]:
    rows, width = total.shape
    rounded = _room(rows, width, total)
    rstd = torch.empty(rows, dtype=torch.float32, device=total.device)
    beside = total if added is None else added
    _rms_norm_rounded[(rows,)](
        total, beside, weight, out, *rounded, rstd,
        total.stride(0), beside.stride(0), out.stride(0), width, eps,
        past=added is not None, largest=LARGEST_E4M3, smallest=SMALLEST_SCALE,
        block=triton.next_power_of_2(width), num_warps=_warps(width),
    )  # fmt: skip
    return Normed(total, weight, rstd), rounded


def rms_norm_backward_rounded(grad: Tensor, normed: Normed, residual: Tensor, out: Tensor) -> Rows8:
    total = normed.total
    rows, width = total.shape
    rounded = _room(rows, width, total)
    _rms_norm_backward_rounded[(rows,)](
        grad, total, normed.weight, normed.rstd, residual, out, *rounded,
        grad.stride(0), total.stride(0), residual.stride(0), out.stride(0), width,
        largest=LARGEST_E4M3, smallest=SMALLEST_SCALE,
        block=triton.next_power_of_2(width), num_warps=_warps(width),
    )  # fmt: skip
    return rounded
