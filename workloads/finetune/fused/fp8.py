"""Joined matrices whose frozen part is multiplied in 8-bit floating point.

Weights are rounded once, for each output channel with a scale of its own, and once more the other
way round for the backward pass, since the multiplier wants both operands contiguous along the
dimension that is summed over. Activations and gradients are rounded row by row as they come. The
adapter stays in the model's own type: it is what is trained, and thin.

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
from .reference import LowRank, Rows8

STEP = 16  # inner and outer dimensions must be multiples of it
LARGEST_LATE = 128  # rank of an adapter whose share can be added in a pass that follows


class Rounded:
    """A frozen matrix [o, d] in 8 bits, laid out both ways."""

    def __init__(self, ops: ModuleType, weight: Tensor) -> None:
        self._ops = ops
        self._rows: Rows8 = ops.quantise_rows(weight)
        self._columns: Rows8 = ops.quantise_rows(weight.t().contiguous())

    def rounded(self, x: Tensor) -> Rows8:
        """`x` [T, n] in 8 bits."""
        rows: Rows8 = self._ops.quantise_rows(x)
        return rows

    def multiply(self, rows: Rows8, out: Tensor, bias: Tensor | None = None) -> None:
        """`out` [T, o] = the rounded rows [T, d] times the matrix, plus `bias` [o]."""
        _multiply(rows, self._rows, out, bias)

    def multiply_back(self, rows: Rows8, out: Tensor) -> None:
        """`out` [T, d], from the rounded rows [T, o] of a gradient."""
        _multiply(rows, self._columns, out)

    def forward(self, x: Tensor, out: Tensor, bias: Tensor | None = None) -> None:
        """`out` [T, o] = x [T, d] times the matrix, plus `bias` [o]."""
        self.multiply(self.rounded(x), out, bias)

    def input_gradient(self, grad: Tensor, out: Tensor) -> None:
        """`out` [T, d], from `grad` [T, o]."""
        self.multiply_back(self.rounded(grad), out)


class FusedProjectionFp8(FusedProjection):
    """As its base, but x and y need no room beside them. `rows` that are not given are made."""

    rounds = True

    def __init__(self, ops: ModuleType, parts: Sequence[Part]) -> None:
        super().__init__(parts)
        weight = self.storage[: self.out_width, : self.width]
        if not fits(weight):
            raise ValueError(
                f"a product of {self.width} x {self.out_width}; fp8 takes multiples of {STEP}"
            )
        self.spare = 0
        self._rounded = Rounded(ops, weight)

    def input_of(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor, out: Tensor, rows: Rows8 | None = None) -> Tensor:
        thin = self._forward(x, out, rows)
        out.addmm_(thin, self._up.t())
        return thin

    def begin_forward(
        self, x: Tensor, out: Tensor, rows: Rows8 | None = None
    ) -> tuple[Tensor, LowRank | None]:
        if self.rank > LARGEST_LATE:
            return self.forward(x, out, rows), None
        thin = self._forward(x, out, rows)
        return thin, self.missing(thin)

    def missing(self, h: Tensor) -> LowRank | None:
        if self.rank > LARGEST_LATE:
            return None
        return LowRank(h, tuple(self._blocks(self._up)))

    def _forward(self, x: Tensor, out: Tensor, rows: Rows8 | None) -> Tensor:
        """The adapter's h; its share of `out` is missing."""
        thin = torch.mm(x, self._down.t())
        self._rounded.multiply(self._rounded.rounded(x) if rows is None else rows, out, self.bias)
        return thin

    def input_gradient(self, grad: Tensor, out: Tensor | None, rows: Rows8 | None = None) -> Tensor:
        if out is None:
            return torch.mm(grad, self._up)
        thin = self._input_gradient(grad, out, rows)
        out.addmm_(thin, self._down)
        return thin

    def begin_input_gradient(
        self, grad: Tensor, out: Tensor, rows: Rows8 | None = None
    ) -> tuple[Tensor, LowRank | None]:
        if self.rank > LARGEST_LATE:
            return self.input_gradient(grad, out, rows), None
        thin = self._input_gradient(grad, out, rows)
        return thin, LowRank(thin, (self._down.t(),))

    def _input_gradient(self, grad: Tensor, out: Tensor, rows: Rows8 | None) -> Tensor:
        """The adapter's g; its share of `out` is missing."""
        thin = torch.mm(grad, self._up)
        given = self._rounded.rounded(grad) if rows is None else rows
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
