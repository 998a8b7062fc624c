"""Joined matrices whose products are made in 8-bit floating point.

Weights are rounded once, for each output channel with the scale that suits it best, and once more
the other way round for the backward pass, since the multiplier wants both operands contiguous along
the dimension that is summed over. Activations and gradients are rounded row by row as they come.

The adapter is trained in fp32; its thin products and its gradients are of the model's own type.
What it adds to y = [h | x] [s B | W]ᵀ, and to the gradient of x, is part of the one product in 8
bits: a row's scale serves h and x alike, so that h is rounded no more coarsely than x is. `SHARE`
of h goes before x, and s B / `SHARE` before W, for h is rarely much smaller than x, and s B mostly
than W. It goes before, not behind, because the multiplier adds to its sums with few bits: to those
of x, the products of a young adapter would be cut off one by one.

Formats and scales by row and column as in FP8 Formats for Deep Learning (arXiv 2209.05433) and
torch._scaled_mm. e4m3 serves gradients, too: a scale for each row leaves its three bits of mantissa
more to say than e5m2's range.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from .fused_projection import FusedProjection, Part
from .head import Head
from .reference import LARGEST_E4M3, SMALLEST_SCALE, Rows8

STEP = 16  # inner and outer dimensions must be multiples of it
SPARE_STEP = 64  # rows begin where they can be fetched at once, however few columns an adapter has
SHARE = 0.25  # a power of two, so that it rounds nothing itself
SCALES = 16  # tried for each channel of a frozen matrix
AT_A_TIME = 1 << 26  # values of it


class Rounded:
    """A frozen matrix [o, d] in 8 bits, laid out both ways, each with `spare` columns."""

    def __init__(self, ops: ModuleType, weight: Tensor, spare: int = 0) -> None:
        self._ops = ops
        self.spare = spare
        self._rows = fitted_rows(weight, spare)
        self._columns = fitted_rows(weight.t(), spare)
        # The scales of the matrix alone.
        self._of_rows, self._of_columns = self._rows.scales.clone(), self._columns.scales.clone()

    def extend(self, weight: Tensor, up: Tensor, down: Tensor) -> None:
        """Put the adapter's `up` [o, r] and `down` [r, d] before `weight`, which is the matrix."""
        for rows, exact, thin, least in (
            (self._rows, weight, up, self._of_rows),
            (self._columns, weight.t(), down.t(), self._of_columns),
        ):
            self._ops.extend_rows(rows, exact, thin, 1 / SHARE, least)

    def rounded(self, x: Tensor) -> Rows8:
        """`x` [T, n] in 8 bits, with the spare columns that a product needs."""
        rows: Rows8 = self._ops.quantise_rows(x, spare=self.spare)
        return rows

    def put_before(self, rows: Rows8, x: Tensor, thin: Tensor) -> None:
        """Put `thin` [T, r] before the `rows` of `x`."""
        self._ops.extend_rows(rows, x, thin, SHARE)

    def multiply(self, rows: Rows8, out: Tensor, bias: Tensor | None = None) -> None:
        """`out` [T, o] = the rounded rows [T, spare + d] times the matrix, plus `bias` [o]."""
        _multiply(rows, self._rows, out, bias)

    def multiply_back(self, rows: Rows8, out: Tensor) -> None:
        """`out` [T, d], from the rounded rows [T, spare + o] of a gradient."""
        _multiply(rows, self._columns, out)

    def forward(self, x: Tensor, out: Tensor, bias: Tensor | None = None) -> None:
        """`out` [T, o] = x [T, d] times the matrix, plus `bias` [o]."""
        self.multiply(self.rounded(x), out, bias)

    def input_gradient(self, grad: Tensor, out: Tensor) -> None:
        """`out` [T, d], from `grad` [T, o]."""
        self.multiply_back(self.rounded(grad), out)


def fitted_rows(matrix: Tensor, spare: int = 0) -> Rows8:
    """A frozen `matrix` [o, d] in 8 bits, behind `spare` columns, each row by the scale that loses
    least of it. Half and twice a scale round alike, so those between are tried: the largest value
    comes to lie in the upper half of the range. It takes a row's whole range once, at the start,
    where inputs and gradients, which come anew, take their largest value alone.
    """
    count, width = matrix.shape
    rows = Rows8.empty(count, width, spare, matrix.device)
    size = max(1, AT_A_TIME // width)
    for start in range(0, count, size):
        part = slice(start, start + size)
        wide = matrix[part].float().contiguous()
        rows.scales[part] = _best_scales(wide)
        rows.values[part, spare:] = _in_8_bits(wide, rows.scales[part])
    return rows


def _best_scales(wide: Tensor) -> Tensor:
    """[n], of the rows of `wide` [n, d]: the least sum of squared differences."""
    first = best = (wide.abs().amax(-1) / LARGEST_E4M3).clamp(min=SMALLEST_SCALE)
    least = _lost(wide, best)
    for number in range(1, SCALES):
        scales = first * 2 ** (number / SCALES)
        lost = _lost(wide, scales)
        best = torch.where(lost < least, scales, best)
        least = torch.minimum(lost, least)
    return best


def _lost(wide: Tensor, scales: Tensor) -> Tensor:
    back = _in_8_bits(wide, scales).float().mul_(scales[:, None])
    return back.sub_(wide).square_().sum(-1)


def _in_8_bits(wide: Tensor, scales: Tensor) -> Tensor:
    return (wide / scales[:, None]).to(torch.float8_e4m3fn)


class FusedProjectionFp8(FusedProjection):
    """As its base, but x and y need no room beside them; their rows in 8 bits do, of `spare8`
    columns. `rows` that are not given are made.
    """

    rounds = True

    def __init__(self, ops: ModuleType, parts: Sequence[Part]) -> None:
        self._ops = ops
        super().__init__(parts)
        self.spare = 0

    def _take(self, parts: Sequence[Part]) -> None:
        super()._take(parts)
        weight = self._frozen
        if not fits(weight):
            raise ValueError(
                f"a product of {self.width} x {self.out_width}; fp8 takes multiples of {STEP}"
            )
        self.spare8 = -(-self.thin // SPARE_STEP) * SPARE_STEP
        self._rounded = Rounded(self._ops, weight, self.spare8)

    @property
    def _frozen(self) -> Tensor:
        """All parts' weights, [O, d]."""
        return self.storage[: self.out_width, : self.width]

    @torch.no_grad()
    def refresh(self) -> None:
        super().refresh()
        self._rounded.extend(self._frozen, self._up, self._down)

    def input_of(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor, out: Tensor, rows: Rows8 | None = None) -> Tensor:
        thin = torch.mm(x, self._down.t())
        given = self._rounded.rounded(x) if rows is None else rows
        self._rounded.put_before(given, x, thin)
        self._rounded.multiply(given, out, self.bias)
        return thin

    def input_gradient(self, grad: Tensor, out: Tensor | None, rows: Rows8 | None = None) -> Tensor:
        thin = torch.mm(grad, self._up)
        if out is not None:
            given = self._rounded.rounded(grad) if rows is None else rows
            self._rounded.put_before(given, grad, thin)
            self._rounded.multiply_back(given, out)
        return thin


class HeadFp8(Head):
    """The output layer in fp8. The label's part of the gradient is one row of the weights, and is
    taken as it is: beside it, probabilities would be too small for 8 bits.
    """

    whole_gradient = False

    def __init__(self, ops: ModuleType, weight: Tensor) -> None:
        super().__init__(weight)
        self._rounded = Rounded(ops, weight)

    def logits(self, hidden: Tensor) -> Tensor:
        out = hidden.new_empty(hidden.shape[0], self.weight.shape[0])
        self._rounded.forward(hidden, out)
        return out

    def input_gradient(self, grad: Tensor, labels: Tensor, scale: float, out: Tensor) -> None:
        self._rounded.input_gradient(grad, out)
        out.sub_(self.weight[labels], alpha=scale)


def fits(weight: Tensor) -> bool:
    """Whether fp8 takes a matrix of this shape."""
    return all(size % STEP == 0 for size in weight.shape)


def _multiply(rows: Rows8, columns: Rows8, out: Tensor, bias: Tensor | None = None) -> None:
    """`out` [T, n] = rows [T, k] columns [n, k]ᵀ, plus `bias` [n]. The multiplier writes bf16; an
    `out` of another type gets the exact product of the rounded operands.
    """
    if out.dtype != torch.bfloat16:
        left, right = (part.values.float() * part.scales[:, None] for part in (rows, columns))
        exact = left @ right.t()
        out.copy_(exact if bias is None else exact + bias)
        return
    torch._scaled_mm(  # noqa: SLF001 - has no public name yet
        rows.values,
        columns.values.t(),
        scale_a=rows.scales[:, None],
        scale_b=columns.scales[None, :],
        bias=bias,
        out_dtype=out.dtype,
        use_fast_accum=True,
        out=out,
    )
