"""SwiGLU in Triton, forward and backward: by pieces of rows; or by whole rows, which are also
rounded to 8 bits while they are at hand: forward in registers, as two powers of two with few
columns too many (18,944 in 16,384 and 4,096); backward, where these would be too few, in the cache.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .norm_kernels import SCALING
from .reference import Rows8

COLUMNS = 2048  # of a row in one program, where rows need not be whole
WARPS = 16  # of a program that makes a whole row
WARPS_BACKWARD = 32  # so many that few rows are under way, which the cache holds
PIECE = 4096  # columns at a time, backward


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _product(gate_up: tl.tensor, out: tl.tensor, at: tl.tensor, width: tl.tensor) -> tl.tensor:
    inside = at < width
    gate = tl.load(gate_up + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + width + at, mask=inside, other=0.0)
    silu = (gate * tl.sigmoid(gate)).to(up.dtype).to(tl.float32)
    product = (silu * up.to(tl.float32)).to(up.dtype)
    tl.store(out + at, product, mask=inside)
    return product


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _gradients(
    grad: tl.tensor, gate_up: tl.tensor, at: tl.tensor, width: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    inside = at < width
    kind = grad.dtype.element_ty
    gate = tl.load(gate_up + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + width + at, mask=inside, other=0.0).to(tl.float32)
    wide = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    of_gate = (wide * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))).to(kind)
    of_up = (wide * silu).to(kind)
    tl.store(gate_up + at, of_gate, mask=inside)
    tl.store(gate_up + width + at, of_up, mask=inside)
    tl.store(grad + at, (silu * up).to(kind), mask=inside)
    return of_gate, of_up


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
    _product(gate_up + row * gate_up_row, out + row * out_row, at, width)


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
    _gradients(grad + row * grad_row, gate_up + row * gate_up_row, at, width)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _largest(values: tl.tensor) -> tl.tensor:
    return tl.max(tl.abs(values), axis=0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _rounded(
    values: tl.tensor, scale: tl.tensor, to: tl.tensor, at: tl.tensor, width: tl.tensor
) -> None:
    small = (values.to(tl.float32) / scale).to(to.dtype.element_ty)
    tl.store(to + at, small, mask=at < width)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _swiglu_rounded(
    gate_up: tl.tensor,
    out: tl.tensor,
    rows8: tl.tensor,
    scales: tl.tensor,
    gate_up_row: tl.tensor,
    out_row: tl.tensor,
    rows8_row: tl.tensor,
    width: tl.tensor,
    head: tl.constexpr,
    tail: tl.constexpr,
    largest: tl.constexpr,
    smallest: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    source, target = gate_up + row * gate_up_row, out + row * out_row
    to = rows8 + row * rows8_row
    first, rest = tl.arange(0, head), head + tl.arange(0, tail)
    ahead = _product(source, target, first, width)
    behind = _product(source, target, rest, width)
    highest = tl.maximum(_largest(ahead), _largest(behind))
    scale = tl.maximum(highest / largest, smallest)
    tl.store(scales + row, scale)
    _rounded(ahead, scale, to, first, width)
    _rounded(behind, scale, to, rest, width)


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _swiglu_backward_rounded(
    grad: tl.tensor,
    gate_up: tl.tensor,
    rows8: tl.tensor,
    scales: tl.tensor,
    grad_row: tl.tensor,
    gate_up_row: tl.tensor,
    rows8_row: tl.tensor,
    width: tl.constexpr,
    block: tl.constexpr,
    largest: tl.constexpr,
    smallest: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    grads, source = grad + row * grad_row, gate_up + row * gate_up_row
    to = rows8 + row * rows8_row
    at = tl.arange(0, block)
    most = tl.zeros((block,), tl.float32)
    for start in range(0, width, block):
        of_gate, of_up = _gradients(grads, source, start + at, width)
        both = tl.maximum(tl.abs(of_gate.to(tl.float32)), tl.abs(of_up.to(tl.float32)))
        most = tl.maximum(most, both)
    scale = tl.maximum(tl.max(most, axis=0) / largest, smallest)
    tl.store(scales + row, scale)
    tl.debug_barrier()  # other threads may read again what these have written
    for start in range(0, 2 * width, block):
        inside = start + at < 2 * width
        made = tl.load(source + start + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(to + start + at, (made / scale).to(rows8.dtype.element_ty), mask=inside)


def swiglu(gate_up: Tensor, out: Tensor) -> None:
    rows, width = out.shape
    _swiglu[(rows, triton.cdiv(width, COLUMNS))](
        gate_up, out, gate_up.stride(0), out.stride(0), width, block=COLUMNS, num_warps=8
    )


def swiglu_backward(grad: Tensor, gate_up: Tensor) -> None:
    rows, width = grad.shape
    _swiglu_backward[(rows, triton.cdiv(width, COLUMNS))](
        grad, gate_up, grad.stride(0), gate_up.stride(0), width, block=COLUMNS, num_warps=8
    )


def swiglu_rounded(gate_up: Tensor, out: Tensor, *, spare: int = 0) -> Rows8:
    rows, width = out.shape
    rounded = Rows8.empty(rows, width, spare, out.device)
    head = max(1, triton.next_power_of_2(width) // 2)
    _swiglu_rounded[(rows,)](
        gate_up, out, *rounded.behind(spare),
        gate_up.stride(0), out.stride(0), width + spare, width,
        head=head, tail=triton.next_power_of_2(max(1, width - head)), **SCALING, num_warps=WARPS,
    )  # fmt: skip
    return rounded


def swiglu_backward_rounded(grad: Tensor, gate_up: Tensor, *, spare: int = 0) -> Rows8:
    rows, width = grad.shape
    rounded = Rows8.empty(rows, 2 * width, spare, grad.device)
    _swiglu_backward_rounded[(rows,)](
        grad, gate_up, *rounded.behind(spare),
        grad.stride(0), gate_up.stride(0), 2 * width + spare,
        width=width, block=PIECE, **SCALING, num_warps=WARPS_BACKWARD,
    )  # fmt: skip
    return rounded
