"""SwiGLU in Triton, forward and backward: by rows; or by tiles, where what an adapter adds to them
is multiplied and added in the same pass, each time that they are read: gate and up are written by
their product alone.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .reference import LowRank

COLUMNS = 2048  # of a row in one program, where rows need not be whole
TALL = 16  # rows of a tile that low-rank products are added to: few, so that several are under way
TILES = 16  # of one program, below one another: it keeps its columns' factors
WIDE = 128  # columns of a tile
WIDE_RANK = 64  # the largest rank with which it is so wide; half of that with others


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _swiglu(
    gate_up: tl.tensor,
    out: tl.tensor,
    gate_up_row: tl.tensor,
    out_row: tl.tensor,
    width: tl.tensor,
    block: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < width
    gate = tl.load(gate_up + row * gate_up_row + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * gate_up_row + width + at, mask=inside, other=0.0)
    silu = (gate * tl.sigmoid(gate)).to(up.dtype).to(tl.float32)
    tl.store(out + row * out_row + at, (silu * up.to(tl.float32)).to(up.dtype), mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _swiglu_backward(
    grad: tl.tensor,
    gate_up: tl.tensor,
    grad_row: tl.tensor,
    gate_up_row: tl.tensor,
    width: tl.tensor,
    block: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < width
    gates = gate_up + row * gate_up_row + at
    gate = tl.load(gates, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gates + width, mask=inside, other=0.0).to(tl.float32)
    grads = grad + row * grad_row + at
    wide = tl.load(grads, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    of_gate = wide * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    kind = grad.dtype.element_ty
    tl.store(gates, of_gate.to(kind), mask=inside)
    tl.store(gates + width, (wide * silu).to(kind), mask=inside)
    tl.store(grads, (silu * up).to(kind), mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _factor(
    factor: tl.tensor,
    at: tl.tensor,
    k: tl.tensor,
    width: tl.tensor,
    row: tl.tensor,
    column: tl.tensor,
    rank: tl.constexpr,
) -> tl.tensor:
    inside = (k < rank)[:, None] & (at < width)[None, :]
    return tl.load(factor + at[None, :] * row + k[:, None] * column, mask=inside, other=0.0)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _swiglu_completed(
    gate_up: tl.tensor,
    out: tl.tensor,
    thin: tl.tensor,
    of_gate: tl.tensor,
    of_up: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    gate_up_row: tl.tensor,
    out_row: tl.tensor,
    thin_row: tl.tensor,
    factor_row: tl.tensor,
    factor_column: tl.tensor,
    rank: tl.constexpr,
    inner: tl.constexpr,
    tall: tl.constexpr,
    wide: tl.constexpr,
    tiles: tl.constexpr,
) -> None:
    at = tl.program_id(0) * wide + tl.arange(0, wide)
    k = tl.arange(0, inner)
    to_gate = _factor(of_gate, at, k, width, factor_row, factor_column, rank)
    to_up = _factor(of_up, at, k, width, factor_row, factor_column, rank)
    kind = out.dtype.element_ty
    for tile in tl.range(0, tiles, num_stages=3):
        row = ((tl.program_id(1) * tiles + tile) * tall + tl.arange(0, tall)).to(tl.int64)
        inside = (row < rows)[:, None] & (at < width)[None, :]
        thin_inside = (row < rows)[:, None] & (k < rank)[None, :]
        left = thin + row[:, None] * thin_row + k[None, :]
        of_gates = tl.load(left, mask=thin_inside, other=0.0)
        of_ups = tl.load(left + rank, mask=thin_inside, other=0.0)
        gates = gate_up + row[:, None] * gate_up_row + at[None, :]
        gate = tl.load(gates, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(gates + width, mask=inside, other=0.0).to(tl.float32)
        gate = tl.dot(of_gates, to_gate, gate, input_precision="ieee")
        up = tl.dot(of_ups, to_up, up, input_precision="ieee")
        silu = (gate * tl.sigmoid(gate)).to(kind).to(tl.float32)
        product = (silu * up.to(kind).to(tl.float32)).to(kind)
        tl.store(out + row[:, None] * out_row + at[None, :], product, mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _swiglu_completed_backward(
    grad: tl.tensor,
    gate_up: tl.tensor,
    thin: tl.tensor,
    of_grad: tl.tensor,
    other_thin: tl.tensor,
    of_gate: tl.tensor,
    of_up: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    grad_row: tl.tensor,
    gate_up_row: tl.tensor,
    thin_row: tl.tensor,
    of_grad_row: tl.tensor,
    of_grad_column: tl.tensor,
    other_thin_row: tl.tensor,
    factor_row: tl.tensor,
    factor_column: tl.tensor,
    rank: tl.constexpr,
    inner: tl.constexpr,
    tall: tl.constexpr,
    wide: tl.constexpr,
    tiles: tl.constexpr,
) -> None:
    at = tl.program_id(0) * wide + tl.arange(0, wide)
    k = tl.arange(0, inner)
    to_grad = _factor(of_grad, at, k, width, of_grad_row, of_grad_column, rank)
    to_gate = _factor(of_gate, at, k, width, factor_row, factor_column, rank)
    to_up = _factor(of_up, at, k, width, factor_row, factor_column, rank)
    kind = grad.dtype.element_ty
    for tile in tl.range(0, tiles, num_stages=3):
        row = ((tl.program_id(1) * tiles + tile) * tall + tl.arange(0, tall)).to(tl.int64)
        inside = (row < rows)[:, None] & (at < width)[None, :]
        thin_inside = (row < rows)[:, None] & (k < rank)[None, :]
        left = tl.load(thin + row[:, None] * thin_row + k[None, :], mask=thin_inside, other=0.0)
        other = other_thin + row[:, None] * other_thin_row + k[None, :]
        of_gates = tl.load(other, mask=thin_inside, other=0.0)
        of_ups = tl.load(other + rank, mask=thin_inside, other=0.0)
        gates = gate_up + row[:, None] * gate_up_row + at[None, :]
        grads = grad + row[:, None] * grad_row + at[None, :]
        gate = tl.load(gates, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(gates + width, mask=inside, other=0.0).to(tl.float32)
        whole = tl.load(grads, mask=inside, other=0.0).to(tl.float32)
        gate = tl.dot(of_gates, to_gate, gate, input_precision="ieee")
        up = tl.dot(of_ups, to_up, up, input_precision="ieee")
        whole = tl.dot(left, to_grad, whole, input_precision="ieee")
        sigmoid = tl.sigmoid(gate)
        silu = gate * sigmoid
        of = whole * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))
        tl.store(gates, of.to(kind), mask=inside)
        tl.store(gates + width, (whole * silu).to(kind), mask=inside)
        tl.store(grads, (silu * up).to(kind), mask=inside)


def swiglu(gate_up: Tensor, out: Tensor, missing: LowRank | None = None) -> None:
    rows, width = out.shape
    if missing is None:
        grid = (rows, triton.cdiv(width, COLUMNS))
        _swiglu[grid](
            gate_up, out, gate_up.stride(0), out.stride(0), width, block=COLUMNS, num_warps=8
        )
        return
    of_gate, of_up = missing.factors
    shape = _shape(of_gate.shape[1])
    _swiglu_completed[_tiles(rows, width, shape)](
        gate_up, out, missing.thin, of_gate, of_up, rows, width,
        gate_up.stride(0), out.stride(0), missing.thin.stride(0), *of_gate.stride(),
        **shape, num_warps=4,
    )  # fmt: skip


def swiglu_backward(
    grad: Tensor,
    gate_up: Tensor,
    missing: LowRank | None = None,
    of_gate_up: LowRank | None = None,
) -> None:
    rows, width = grad.shape
    if missing is None or of_gate_up is None:
        if missing is not of_gate_up:
            raise ValueError("something is missing of the gradient or of gate and up alone")
        grid = (rows, triton.cdiv(width, COLUMNS))
        _swiglu_backward[grid](
            grad, gate_up, grad.stride(0), gate_up.stride(0), width, block=COLUMNS, num_warps=8
        )
        return
    (of_grad,) = missing.factors
    of_gate, of_up = of_gate_up.factors
    shape = _shape(of_grad.shape[1])
    _swiglu_completed_backward[_tiles(rows, width, shape)](
        grad, gate_up, missing.thin, of_grad, of_gate_up.thin, of_gate, of_up, rows, width,
        grad.stride(0), gate_up.stride(0), missing.thin.stride(0), *of_grad.stride(),
        of_gate_up.thin.stride(0), *of_gate.stride(), **shape, num_warps=4,
    )  # fmt: skip


def _shape(rank: int) -> dict[str, int]:
    """Of a program's tiles; matrices that are multiplied have 16 rows or columns at least."""
    inner = max(16, triton.next_power_of_2(rank))
    wide = WIDE if rank <= WIDE_RANK else WIDE // 2
    return {"rank": rank, "inner": inner, "tall": TALL, "wide": wide, "tiles": TILES}


def _tiles(rows: int, width: int, shape: dict[str, int]) -> tuple[int, int]:
    return triton.cdiv(width, shape["wide"]), triton.cdiv(rows, shape["tall"] * shape["tiles"])
