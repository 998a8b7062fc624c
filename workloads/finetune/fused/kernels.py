"""The operations of `reference` as Triton kernels, for CUDA: each passes once over its tensors.

They are bound by memory, so each program holds a row, or a block of one, in registers, computes in
fp32 and writes once. Offsets of rows are 64 bits wide: 32,000 tokens times 37,888 columns are more
than 31.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .reference import LARGEST_E4M3, SMALLEST_SCALE, Normed, Rows8
from .rounding_kernels import rms_norm_backward_rounded, rms_norm_rounded
from .swiglu_kernels import swiglu, swiglu_backward

__all__ = [
    "cross_entropy_",
    "quantise_rows",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_backward_rounded",
    "rms_norm_rounded",
    "rotate",
    "swiglu",
    "swiglu_backward",
]

COLUMNS = 2048  # of heads in one program
AT_A_TIME = 8192  # of a row that is passed over twice
WHOLE = 65_536  # as many of a row as 512 threads can hold in 16 bits


def _warps(columns: int) -> int:
    """Enough threads for eight values each, within what a program may have."""
    warps: int = min(max(triton.next_power_of_2(columns) // 256, 1), 16)
    return warps


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _rms_norm(
    x: tl.tensor,
    added: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    rstd: tl.tensor,
    x_row: tl.tensor,
    added_row: tl.tensor,
    out_row: tl.tensor,
    width: tl.tensor,
    eps: tl.tensor,
    past: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    values = tl.load(x + row * x_row + at, mask=inside, other=0.0)
    if past:
        beside = tl.load(added + row * added_row + at, mask=inside, other=0.0)
        values = (values.to(tl.float32) + beside.to(tl.float32)).to(beside.dtype)
        tl.store(x + row * x_row + at, values, mask=inside)
    wide = values.to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(wide * wide, axis=0) / width + eps)
    tl.store(rstd + row, inverse)
    normed = (wide * inverse).to(values.dtype)
    scale = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    product = (normed.to(tl.float32) * scale).to(values.dtype)
    tl.store(out + row * out_row + at, product, mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _rms_norm_backward(
    grad: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    rstd: tl.tensor,
    residual: tl.tensor,
    out: tl.tensor,
    grad_row: tl.tensor,
    x_row: tl.tensor,
    residual_row: tl.tensor,
    out_row: tl.tensor,
    width: tl.tensor,
    past: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < width
    inverse = tl.load(rstd + row)
    scale = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    scaled = tl.load(grad + row * grad_row + at, mask=inside, other=0.0).to(tl.float32) * scale
    normed = tl.load(x + row * x_row + at, mask=inside, other=0.0).to(tl.float32) * inverse
    inner = tl.sum(scaled * normed, axis=0) / width
    result = (scaled - normed * inner) * inverse
    if past:
        beside = tl.load(residual + row * residual_row + at, mask=inside, other=0.0)
        result += beside.to(tl.float32)
    tl.store(out + row * out_row + at, result.to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _rotate(
    x: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    out: tl.tensor,
    x_row: tl.tensor,
    out_row: tl.tensor,
    table_row: tl.tensor,
    heads: tl.tensor,
    sign: tl.tensor,
    together: tl.constexpr,
    half: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * together + tl.arange(0, together)
    at = tl.arange(0, block)
    inside = (head < heads)[:, None] & (at < half)[None, :]
    place = head[:, None] * (2 * half) + at[None, :]
    cosine = tl.load(cos + row * table_row + at, mask=at < half, other=0.0).to(tl.float32)[None, :]
    sine = tl.load(sin + row * table_row + at, mask=at < half, other=0.0).to(tl.float32)[None, :]
    sine *= sign
    first = tl.load(x + row * x_row + place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + row * x_row + place + half, mask=inside, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    tl.store(out + row * out_row + place, (first * cosine - second * sine).to(kind), mask=inside)
    turned = (second * cosine + first * sine).to(kind)
    tl.store(out + row * out_row + place + half, turned, mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _quantise_rows(
    x: tl.tensor,
    out: tl.tensor,
    scales: tl.tensor,
    x_row: tl.tensor,
    width: tl.constexpr,
    largest: tl.constexpr,
    smallest: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    values = tl.load(x + row * x_row + at, mask=at < width, other=0.0)
    highest = tl.max(tl.abs(values), axis=0).to(tl.float32)
    for start in range(block, width, block):
        more = tl.load(x + row * x_row + start + at, mask=start + at < width, other=0.0)
        highest = tl.maximum(highest, tl.max(tl.abs(more), axis=0).to(tl.float32))
    scale = tl.maximum(highest / largest, smallest)
    tl.store(scales + row, scale)
    kind = out.dtype.element_ty
    line = out + row * width + at
    tl.store(line, (values.to(tl.float32) / scale).to(kind), mask=at < width)
    for start in range(block, width, block):
        more = tl.load(x + row * x_row + start + at, mask=start + at < width, other=0.0)
        tl.store(line + start, (more.to(tl.float32) / scale).to(kind), mask=start + at < width)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _cross_entropy(
    logits: tl.tensor,
    labels: tl.tensor,
    losses: tl.tensor,
    logits_row: tl.tensor,
    scale: tl.tensor,
    less_labels: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    line = logits + row * logits_row
    label = tl.load(labels + row)
    chosen = tl.load(line + label).to(tl.float32)
    highest = -float("inf")
    total = 0.0
    for start in range(0, width, block):
        at = start + tl.arange(0, block)
        part = tl.load(line + at, mask=at < width, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(part, axis=0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(part - higher), axis=0)
        highest = higher
    normaliser = highest + tl.log(total)
    tl.store(losses + row, normaliser - chosen)
    for start in range(0, width, block):
        at = start + tl.arange(0, block)
        inside = at < width
        part = tl.load(line + at, mask=inside, other=-float("inf")).to(tl.float32)
        share = tl.exp(part - normaliser)
        if less_labels:
            share -= tl.where(at == label, 1.0, 0.0)
        tl.store(line + at, (share * scale).to(logits.dtype.element_ty), mask=inside)


def rms_norm(
    total: Tensor, weight: Tensor, eps: float, out: Tensor, added: Tensor | None = None
) -> Normed:
    rows, width = total.shape
    rstd = torch.empty(rows, dtype=torch.float32, device=total.device)
    beside = total if added is None else added
    _rms_norm[(rows,)](
        total, beside, weight, out, rstd,
        total.stride(0), beside.stride(0), out.stride(0), width, eps,
        past=added is not None, block=triton.next_power_of_2(width), num_warps=_warps(width),
    )  # fmt: skip
    return Normed(total, weight, rstd)


def rms_norm_backward(grad: Tensor, normed: Normed, residual: Tensor | None, out: Tensor) -> None:
    total = normed.total
    rows, width = total.shape
    beside = grad if residual is None else residual
    _rms_norm_backward[(rows,)](
        grad, total, normed.weight, normed.rstd, beside, out,
        grad.stride(0), total.stride(0), beside.stride(0), out.stride(0), width,
        past=residual is not None, block=triton.next_power_of_2(width), num_warps=_warps(width),
    )  # fmt: skip


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, inverse: bool, out: Tensor) -> None:
    tokens, depth = cos.shape
    half, heads = depth // 2, x.shape[1] // depth
    block = triton.next_power_of_2(half)
    together = min(triton.next_power_of_2(heads), max(1, COLUMNS // block))
    _rotate[(tokens, triton.cdiv(heads, together))](
        x, cos, sin, out, x.stride(0), out.stride(0), cos.stride(0), heads,
        -1.0 if inverse else 1.0, together=together, half=half, block=block, num_warps=4,
    )  # fmt: skip


def quantise_rows(x: Tensor) -> Rows8:
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(rows, dtype=torch.float32, device=x.device)
    block = min(triton.next_power_of_2(width), WHOLE)
    _quantise_rows[(rows,)](
        x, out, scales, x.stride(0), width=width, largest=LARGEST_E4M3, smallest=SMALLEST_SCALE,
        block=block, num_warps=_warps(block),
    )  # fmt: skip
    return Rows8(out, scales)


def cross_entropy_(
    logits: Tensor, labels: Tensor, scale: float, *, less_labels: bool = True
) -> Tensor:
    rows, width = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    block = min(triton.next_power_of_2(width), AT_A_TIME)
    _cross_entropy[(rows,)](
        logits, labels, losses, logits.stride(0), scale,
        less_labels=less_labels, width=width, block=block, num_warps=16,
    )  # fmt: skip
    return losses.sum()
