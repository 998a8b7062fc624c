"""SwiGLU in Triton, forward and backward: by rows; or by tiles, where what an adapter adds to them
is multiplied and added in the same pass.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .reference import LowRank

COLUMNS = 2048  # of a row in one program, where rows need not be whole
TALL, WIDE = 64, 64  # of a tile that low-rank products are added to, forward
TALL_BACK = 32  # and backward, where more is in registers
INNER = 64  # of such a product at a time


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
def _low_rank(
    thin: tl.tensor,
    factor: tl.tensor,
    row: tl.tensor,
    at: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    thin_row: tl.tensor,
    factor_row: tl.tensor,
    factor_column: tl.tensor,
    rank: tl.constexpr,
    inner: tl.constexpr,
    tall: tl.constexpr,
    wide: tl.constexpr,
) -> tl.tensor:
    total = tl.zeros((tall, wide), tl.float32)
    for start in tl.static_range(0, rank, inner):
        k = start + tl.arange(0, inner)
        left_inside = (row < rows)[:, None] & (k < rank)[None, :]
        left = tl.load(thin + row[:, None] * thin_row + k[None, :], mask=left_inside, other=0.0)
        right_inside = (k < rank)[:, None] & (at < width)[None, :]
        place = at[None, :] * factor_row + k[:, None] * factor_column
        right = tl.load(factor + place, mask=right_inside, other=0.0)
        total = tl.dot(left, right, total, input_precision="ieee")
    return total


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
) -> None:
    row = (tl.program_id(1) * tall + tl.arange(0, tall)).to(tl.int64)
    at = tl.program_id(0) * wide + tl.arange(0, wide)
    inside = (row < rows)[:, None] & (at < width)[None, :]
    gates = gate_up + row[:, None] * gate_up_row + at[None, :]
    gate = tl.load(gates, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gates + width, mask=inside, other=0.0).to(tl.float32)
    gate += _low_rank(
        thin, of_gate, row, at, rows, width, thin_row, factor_row, factor_column,
        rank, inner, tall, wide,
    )  # fmt: skip
    up += _low_rank(
        thin + rank, of_up, row, at, rows, width, thin_row, factor_row, factor_column,
        rank, inner, tall, wide,
    )  # fmt: skip
    kind = out.dtype.element_ty
    tl.store(gates, gate.to(kind), mask=inside)
    tl.store(gates + width, up.to(kind), mask=inside)
    silu = (gate * tl.sigmoid(gate)).to(kind).to(tl.float32)
    product = (silu * up.to(kind).to(tl.float32)).to(kind)
    tl.store(out + row[:, None] * out_row + at[None, :], product, mask=inside)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _swiglu_completed_backward(
    grad: tl.tensor,
    gate_up: tl.tensor,
    thin: tl.tensor,
    factor: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    grad_row: tl.tensor,
    gate_up_row: tl.tensor,
    thin_row: tl.tensor,
    factor_row: tl.tensor,
    factor_column: tl.tensor,
    rank: tl.constexpr,
    inner: tl.constexpr,
    tall: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    row = (tl.program_id(1) * tall + tl.arange(0, tall)).to(tl.int64)
    at = tl.program_id(0) * wide + tl.arange(0, wide)
    inside = (row < rows)[:, None] & (at < width)[None, :]
    gates = gate_up + row[:, None] * gate_up_row + at[None, :]
    grads = grad + row[:, None] * grad_row + at[None, :]
    gate = tl.load(gates, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gates + width, mask=inside, other=0.0).to(tl.float32)
    whole = tl.load(grads, mask=inside, other=0.0).to(tl.float32)
    whole += _low_rank(
        thin, factor, row, at, rows, width, thin_row, factor_row, factor_column,
        rank, inner, tall, wide,
    )  # fmt: skip
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    kind = grad.dtype.element_ty
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
    _swiglu_completed[_tiles(rows, width, TALL)](
        gate_up, out, missing.thin, of_gate, of_up, rows, width,
        gate_up.stride(0), out.stride(0), missing.thin.stride(0), *of_gate.stride(),
        rank=of_gate.shape[1], inner=INNER, tall=TALL, wide=WIDE, num_warps=4,
    )  # fmt: skip


def swiglu_backward(grad: Tensor, gate_up: Tensor, missing: LowRank | None = None) -> None:
    rows, width = grad.shape
    if missing is None:
        grid = (rows, triton.cdiv(width, COLUMNS))
        _swiglu_backward[grid](
            grad, gate_up, grad.stride(0), gate_up.stride(0), width, block=COLUMNS, num_warps=8
        )
        return
    (factor,) = missing.factors
    _swiglu_completed_backward[_tiles(rows, width, TALL_BACK)](
        grad, gate_up, missing.thin, factor, rows, width,
        grad.stride(0), gate_up.stride(0), missing.thin.stride(0), *factor.stride(),
        rank=factor.shape[1], inner=INNER, tall=TALL_BACK, wide=WIDE, num_warps=4,
    )  # fmt: skip


def _tiles(rows: int, width: int, tall: int) -> tuple[int, int]:
    return triton.cdiv(width, WIDE), triton.cdiv(rows, tall)
