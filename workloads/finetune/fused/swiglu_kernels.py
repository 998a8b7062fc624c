"""SwiGLU in Triton, forward and backward: by rows; or by tiles, where what an adapter adds to them
is multiplied and added in the same pass, which can also round to 8 bits what it makes.

A row's scale must be known before its first tile is rounded. A first launch makes some columns and
finds their largest value; the row's is no smaller, and hardly ever `HEADROOM` times as large, which
is where the scale leaves off. A floating-point format loses nothing by that: its steps are as large
as the values are. A last launch rounds the first columns, and the rows that are larger after all,
by their own largest value.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .reference import LARGEST_E4M3, SMALLEST_SCALE, LowRank, Rows8

COLUMNS = 2048  # of a row in one program, where rows need not be whole
TALL = 16  # rows of a tile that low-rank products are added to: few, so that several are under way
TILES = 16  # of one program, below one another: it keeps its columns' factors
WIDE = 128  # columns of a tile, up to this rank half of it
WIDE_RANK = 64
SAMPLE = 1024  # columns by which a row's scale is chosen
HEADROOM = 16.0
PIECE = 4096  # of a row that is rounded later
SCALING = {"largest": LARGEST_E4M3, "smallest": SMALLEST_SCALE, "headroom": HEADROOM}
PLAIN, SAMPLED, ROUNDED = 0, 1, 2  # what a launch does besides


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
    rows8: tl.tensor,
    highest: tl.tensor,
    over: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    begin: tl.tensor,
    end: tl.tensor,
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
    also: tl.constexpr,
    largest: tl.constexpr,
    smallest: tl.constexpr,
    headroom: tl.constexpr,
) -> None:
    at = begin + tl.program_id(0) * wide + tl.arange(0, wide)
    k = tl.arange(0, inner)
    to_gate = _factor(of_gate, at, k, width, factor_row, factor_column, rank)
    to_up = _factor(of_up, at, k, width, factor_row, factor_column, rank)
    kind = out.dtype.element_ty
    for tile in tl.range(0, tiles, num_stages=3):
        row = ((tl.program_id(1) * tiles + tile) * tall + tl.arange(0, tall)).to(tl.int64)
        inside = (row < rows)[:, None] & (at < end)[None, :]
        thin_inside = (row < rows)[:, None] & (k < rank)[None, :]
        left = thin + row[:, None] * thin_row + k[None, :]
        of_gates = tl.load(left, mask=thin_inside, other=0.0)
        of_ups = tl.load(left + rank, mask=thin_inside, other=0.0)
        gates = gate_up + row[:, None] * gate_up_row + at[None, :]
        gate = tl.load(gates, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(gates + width, mask=inside, other=0.0).to(tl.float32)
        gate = tl.dot(of_gates, to_gate, gate, input_precision="ieee")
        up = tl.dot(of_ups, to_up, up, input_precision="ieee")
        tl.store(gates, gate.to(kind), mask=inside)
        tl.store(gates + width, up.to(kind), mask=inside)
        silu = (gate * tl.sigmoid(gate)).to(kind).to(tl.float32)
        product = (silu * up.to(kind).to(tl.float32)).to(kind)
        tl.store(out + row[:, None] * out_row + at[None, :], product, mask=inside)
        if also == 1:
            found = tl.max(tl.abs(tl.where(inside, product, 0.0).to(tl.float32)), axis=1)
            tl.atomic_max(highest + row, found, mask=row < rows)
        if also == 2:
            seen = tl.load(highest + row, mask=row < rows, other=1.0)
            scale = tl.maximum(seen * (headroom / largest), smallest)
            small = product.to(tl.float32) * (1.0 / scale)[:, None]
            place = rows8 + row[:, None] * width + at[None, :]
            tl.store(place, small.to(rows8.dtype.element_ty), mask=inside)
            most = tl.max(tl.abs(tl.where(inside, small, 0.0)), axis=1)
            tl.store(over + row, 1.0, mask=(row < rows) & (most > largest))


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _swiglu_completed_backward(
    grad: tl.tensor,
    gate_up: tl.tensor,
    thin: tl.tensor,
    factor: tl.tensor,
    rows8: tl.tensor,
    highest: tl.tensor,
    over: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    begin: tl.tensor,
    end: tl.tensor,
    grad_row: tl.tensor,
    gate_up_row: tl.tensor,
    thin_row: tl.tensor,
    factor_row: tl.tensor,
    factor_column: tl.tensor,
    rank: tl.constexpr,
    inner: tl.constexpr,
    tall: tl.constexpr,
    wide: tl.constexpr,
    tiles: tl.constexpr,
    also: tl.constexpr,
    largest: tl.constexpr,
    smallest: tl.constexpr,
    headroom: tl.constexpr,
) -> None:
    at = begin + tl.program_id(0) * wide + tl.arange(0, wide)
    k = tl.arange(0, inner)
    to_grad = _factor(factor, at, k, width, factor_row, factor_column, rank)
    kind = grad.dtype.element_ty
    for tile in tl.range(0, tiles, num_stages=3):
        row = ((tl.program_id(1) * tiles + tile) * tall + tl.arange(0, tall)).to(tl.int64)
        inside = (row < rows)[:, None] & (at < end)[None, :]
        thin_inside = (row < rows)[:, None] & (k < rank)[None, :]
        left = tl.load(thin + row[:, None] * thin_row + k[None, :], mask=thin_inside, other=0.0)
        gates = gate_up + row[:, None] * gate_up_row + at[None, :]
        grads = grad + row[:, None] * grad_row + at[None, :]
        gate = tl.load(gates, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(gates + width, mask=inside, other=0.0).to(tl.float32)
        whole = tl.load(grads, mask=inside, other=0.0).to(tl.float32)
        whole = tl.dot(left, to_grad, whole, input_precision="ieee")
        sigmoid = tl.sigmoid(gate)
        silu = gate * sigmoid
        of_gate = (whole * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))).to(kind)
        of_up = (whole * silu).to(kind)
        tl.store(gates, of_gate, mask=inside)
        tl.store(gates + width, of_up, mask=inside)
        tl.store(grads, (silu * up).to(kind), mask=inside)
        if also == 1:
            both = tl.maximum(tl.abs(of_gate.to(tl.float32)), tl.abs(of_up.to(tl.float32)))
            found = tl.max(tl.where(inside, both, 0.0), axis=1)
            tl.atomic_max(highest + row, found, mask=row < rows)
        if also == 2:
            seen = tl.load(highest + row, mask=row < rows, other=1.0)
            shrink = (1.0 / tl.maximum(seen * (headroom / largest), smallest))[:, None]
            small_gate = of_gate.to(tl.float32) * shrink
            small_up = of_up.to(tl.float32) * shrink
            place = rows8 + row[:, None] * (2 * width) + at[None, :]
            tl.store(place, small_gate.to(rows8.dtype.element_ty), mask=inside)
            tl.store(place + width, small_up.to(rows8.dtype.element_ty), mask=inside)
            both = tl.maximum(tl.abs(small_gate), tl.abs(small_up))
            most = tl.max(tl.where(inside, both, 0.0), axis=1)
            tl.store(over + row, 1.0, mask=(row < rows) & (most > largest))


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _round_what_is_left(
    x: tl.tensor,
    rows8: tl.tensor,
    scales: tl.tensor,
    highest: tl.tensor,
    over: tl.tensor,
    x_row: tl.tensor,
    width: tl.constexpr,
    parts: tl.constexpr,
    sample: tl.constexpr,
    largest: tl.constexpr,
    smallest: tl.constexpr,
    headroom: tl.constexpr,
    piece: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    kind = rows8.dtype.element_ty
    line = x + row * x_row
    to = rows8 + row * (parts * width)
    if tl.load(over + row) > 0.0:
        at = tl.arange(0, piece)
        most = tl.zeros((piece,), tl.float32)
        for start in range(0, parts * width, piece):
            values = tl.load(line + start + at, mask=start + at < parts * width, other=0.0)
            most = tl.maximum(most, tl.abs(values.to(tl.float32)))
        scale = tl.maximum(tl.max(most, axis=0) / largest, smallest)
        tl.store(scales + row, scale)
        for start in range(0, parts * width, piece):
            inside = start + at < parts * width
            values = tl.load(line + start + at, mask=inside, other=0.0).to(tl.float32)
            tl.store(to + start + at, (values / scale).to(kind), mask=inside)
    else:
        first = tl.arange(0, sample)
        scale = tl.maximum(tl.load(highest + row) * (headroom / largest), smallest)
        tl.store(scales + row, scale)
        for part in range(parts):
            values = tl.load(line + part * width + first).to(tl.float32)
            tl.store(to + part * width + first, (values * (1.0 / scale)).to(kind))


def swiglu(gate_up: Tensor, out: Tensor, missing: LowRank | None = None) -> None:
    rows, width = out.shape
    if missing is None:
        grid = (rows, triton.cdiv(width, COLUMNS))
        _swiglu[grid](
            gate_up, out, gate_up.stride(0), out.stride(0), width, block=COLUMNS, num_warps=8
        )
        return
    none = _Rounding(None, gate_up, missing)
    _complete(gate_up, out, missing, none, (0, width), PLAIN)


def swiglu_backward(grad: Tensor, gate_up: Tensor, missing: LowRank | None = None) -> None:
    rows, width = grad.shape
    if missing is None:
        grid = (rows, triton.cdiv(width, COLUMNS))
        _swiglu_backward[grid](
            grad, gate_up, grad.stride(0), gate_up.stride(0), width, block=COLUMNS, num_warps=8
        )
        return
    none = _Rounding(None, gate_up, missing)
    _complete_backward(grad, gate_up, missing, none, (0, width), PLAIN)


def swiglu_rounded(gate_up: Tensor, out: Tensor, missing: LowRank) -> Rows8 | None:
    """None where a row has too few columns for a sample of them."""
    width = out.shape[1]
    if width <= SAMPLE:
        return None
    made = _Rounding(width, gate_up, missing)
    _complete(gate_up, out, missing, made, (0, SAMPLE), SAMPLED)
    _complete(gate_up, out, missing, made, (SAMPLE, width), ROUNDED)
    return made.finished(out, 1)


def swiglu_backward_rounded(grad: Tensor, gate_up: Tensor, missing: LowRank) -> Rows8 | None:
    """As above."""
    width = grad.shape[1]
    if width <= SAMPLE:
        return None
    made = _Rounding(2 * width, gate_up, missing)
    _complete_backward(grad, gate_up, missing, made, (0, SAMPLE), SAMPLED)
    _complete_backward(grad, gate_up, missing, made, (SAMPLE, width), ROUNDED)
    return made.finished(gate_up, 2)


class _Rounding:
    """Where rounded rows of so many columns come, what is known of their largest values, and which
    of them are larger than was thought; without columns, nothing of the kind.
    """

    def __init__(self, columns: int | None, like: Tensor, missing: LowRank) -> None:
        rows, device = like.shape[0], like.device
        if columns is None:
            # Never read or written.
            self.values = self.highest = self.over = missing.thin
            return
        self.values = torch.empty(rows, columns, dtype=torch.float8_e4m3fn, device=device)
        self.highest, self.over = torch.zeros(2, rows, dtype=torch.float32, device=device)

    def finished(self, made: Tensor, parts: int) -> Rows8:
        """With what the launches have left of `made`, which is `parts` beside one another."""
        rows, columns = self.values.shape
        scales = torch.empty_like(self.highest)
        _round_what_is_left[(rows,)](
            made, self.values, scales, self.highest, self.over, made.stride(0),
            width=columns // parts, parts=parts, sample=SAMPLE, largest=LARGEST_E4M3,
            smallest=SMALLEST_SCALE, headroom=HEADROOM, piece=PIECE, num_warps=4,
        )  # fmt: skip
        return Rows8(self.values, scales)


def _complete(
    gate_up: Tensor,
    out: Tensor,
    missing: LowRank,
    made: _Rounding,
    columns: tuple[int, int],
    also: int,
) -> None:
    """Make the `columns`, from one to another, of `out`."""
    rows, width = out.shape
    of_gate, of_up = missing.factors
    shape = _shape(of_gate.shape[1])
    _swiglu_completed[_tiles(rows, columns, shape)](
        gate_up, out, missing.thin, of_gate, of_up, made.values, made.highest, made.over,
        rows, width, *columns,
        gate_up.stride(0), out.stride(0), missing.thin.stride(0), *of_gate.stride(),
        **shape, also=also, **SCALING, num_warps=4,
    )  # fmt: skip


def _complete_backward(
    grad: Tensor,
    gate_up: Tensor,
    missing: LowRank,
    made: _Rounding,
    columns: tuple[int, int],
    also: int,
) -> None:
    """Make the `columns` of the gradients."""
    rows, width = grad.shape
    (factor,) = missing.factors
    shape = _shape(factor.shape[1])
    _swiglu_completed_backward[_tiles(rows, columns, shape)](
        grad, gate_up, missing.thin, factor, made.values, made.highest, made.over,
        rows, width, *columns,
        grad.stride(0), gate_up.stride(0), missing.thin.stride(0), *factor.stride(),
        **shape, also=also, **SCALING, num_warps=4,
    )  # fmt: skip


def _shape(rank: int) -> dict[str, int]:
    """Of a program's tiles; matrices that are multiplied have 16 rows or columns at least."""
    inner = max(16, triton.next_power_of_2(rank))
    wide = WIDE if rank <= WIDE_RANK else WIDE // 2
    return {"rank": rank, "inner": inner, "tall": TALL, "wide": wide, "tiles": TILES}


def _tiles(rows: int, columns: tuple[int, int], shape: dict[str, int]) -> tuple[int, int]:
    begin, end = columns
    return triton.cdiv(end - begin, shape["wide"]), triton.cdiv(rows, shape["tall"] * TILES)
