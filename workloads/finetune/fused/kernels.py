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

from .norm_kernels import (
    SCALING,
    rms_norm,
    rms_norm_backward,
    rms_norm_backward_rounded,
    rms_norm_rounded,
    warps,
)
from .reference import LARGEST_E4M3, Rows8
from .swiglu_kernels import swiglu, swiglu_backward, swiglu_backward_rounded, swiglu_rounded

__all__ = [
    "cross_entropy_",
    "extend_rows",
    "quantise_rows",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_backward_rounded",
    "rms_norm_rounded",
    "rotate",
    "swiglu",
    "swiglu_backward",
    "swiglu_backward_rounded",
    "swiglu_rounded",
]

COLUMNS = 2048  # of heads in one program
AT_A_TIME = 8192  # of a row that is passed over twice
WHOLE = 65_536  # as many of a row as 512 threads can hold in 16 bits
TALL = 16  # rows of one program that have an adapter's columns put before them
PIECE = 256  # columns of a row that is rounded again


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
    out_row: tl.tensor,
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
    line = out + row * out_row + at
    tl.store(line, (values.to(tl.float32) / scale).to(kind), mask=at < width)
    for start in range(block, width, block):
        more = tl.load(x + row * x_row + start + at, mask=start + at < width, other=0.0)
        tl.store(line + start, (more.to(tl.float32) / scale).to(kind), mask=start + at < width)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _extend_rows(
    values: tl.tensor,
    scales: tl.tensor,
    least: tl.tensor,
    x: tl.tensor,
    thin: tl.tensor,
    rows: tl.tensor,
    values_row: tl.tensor,
    x_row: tl.tensor,
    x_column: tl.tensor,
    thin_row: tl.tensor,
    thin_column: tl.tensor,
    factor: tl.tensor,
    width: tl.constexpr,
    rank: tl.constexpr,
    spare: tl.constexpr,
    inner: tl.constexpr,
    largest: tl.constexpr,
    tall: tl.constexpr,
    block: tl.constexpr,
) -> None:
    row = (tl.program_id(0) * tall + tl.arange(0, tall)).to(tl.int64)
    k = tl.arange(0, inner)
    there = row < rows
    own = tl.load(
        thin + row[:, None] * thin_row + k[None, :] * thin_column,
        mask=there[:, None] & (k < rank)[None, :],
        other=0.0,
    )
    own = own.to(tl.float32) * factor
    before = tl.load(scales + row, mask=there, other=1.0)
    scale = tl.load(least + row, mask=there, other=1.0)
    scale = tl.maximum(scale, tl.max(tl.abs(own), axis=1) / largest)
    kind = values.dtype.element_ty
    line = values + row[:, None] * values_row
    before_x = there[:, None] & (k < spare)[None, :]
    tl.store(line + k[None, :], (own / scale[:, None]).to(kind), mask=before_x)
    other = there & (scale != before)
    if tl.max(other.to(tl.int32), axis=0) > 0:
        tl.store(scales + row, scale, mask=other)
        for start in range(0, width, block):
            at = start + tl.arange(0, block)
            again = other[:, None] & (at < width)[None, :]
            exact = tl.load(
                x + row[:, None] * x_row + at.to(tl.int64)[None, :] * x_column,
                mask=again,
                other=0.0,
            )
            rounded = (exact.to(tl.float32) / scale[:, None]).to(kind)
            tl.store(line + spare + at[None, :], rounded, mask=again)


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


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, inverse: bool, out: Tensor) -> None:
    tokens, depth = cos.shape
    half, heads = depth // 2, x.shape[1] // depth
    block = triton.next_power_of_2(half)
    together = min(triton.next_power_of_2(heads), max(1, COLUMNS // block))
    _rotate[(tokens, triton.cdiv(heads, together))](
        x, cos, sin, out, x.stride(0), out.stride(0), cos.stride(0), heads,
        -1.0 if inverse else 1.0, together=together, half=half, block=block, num_warps=4,
    )  # fmt: skip


def quantise_rows(x: Tensor, *, spare: int = 0) -> Rows8:
    rows, width = x.shape
    out = Rows8.empty(rows, width, spare, x.device)
    block = min(triton.next_power_of_2(width), WHOLE)
    _quantise_rows[(rows,)](
        x, *out.behind(spare), x.stride(0), width + spare, width=width, **SCALING,
        block=block, num_warps=warps(block),
    )  # fmt: skip
    return out


def extend_rows(
    rows: Rows8, x: Tensor, thin: Tensor, factor: float, least: Tensor | None = None
) -> None:
    count, width = x.shape
    total, rank = rows.values.shape[1], thin.shape[1]
    _extend_rows[(triton.cdiv(count, TALL),)](
        *rows, rows.scales if least is None else least, x, thin, count, total,
        *x.stride(), *thin.stride(), factor,
        width=width, rank=rank, spare=total - width, inner=triton.next_power_of_2(total - width),
        largest=LARGEST_E4M3, tall=TALL, block=PIECE, num_warps=4,
    )  # fmt: skip


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
