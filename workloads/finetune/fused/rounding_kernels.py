"""Rounding to 8 bits in Triton: rows as they are, and what an adapter puts before them."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .norm_kernels import SCALING, warps
from .reference import LARGEST_E4M3, Rows8

WHOLE = 65_536  # as many of a row as 512 threads can hold in 16 bits
TALL = 16  # rows of one program that have columns added
PIECE = 256  # columns of a row that is rounded again


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
