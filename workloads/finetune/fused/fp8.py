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
from .reference import LowRank

STEP = 16  # inner and outer dimensions must be multiples of it


class Rounded:
    """A frozen matrix [o, d] in 8 bits, laid out both ways."""

    def __init__(self, ops: ModuleType, weight: Tensor) -> None:
        self._ops = ops
        self._rows: tuple[Tensor, Tensor] = ops.quantise_rows(weight)
        self._columns: tuple[Tensor, Tensor] = ops.quantise_rows(weight.t().contiguous())

    def rounded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`x` [T, n] in 8 bits, and the scales of its rows."""
        rows: tuple[Tensor, Tensor] = self._ops.quantise_rows(x)
        return rows

    def multiply(
        self, rows: tuple[Tensor, Tensor], out: Tensor, bias: Tensor | None = None
    ) -> None:
        """`out` [T, o] = the rounded rows [T, d] times the matrix, plus `bias` [o]."""
        _multiply(rows, *self._rows, out, bias)

    def multiply_back(self, rows: tuple[Tensor, Tensor], out: Tensor) -> None:
        """`out` [T, d], from the rounded rows [T, o] of a gradient."""
        _multiply(rows, *self._columns, out)

    def forward(self, x: Tensor, out: Tensor, bias: Tensor | None = None) -> None:
        """`out` [T, o] = x [T, d] times the matrix, plus `bias` [o]."""
        self.multiply(self.rounded(x), out, bias)

    def input_gradient(self, grad: Tensor, out: Tensor) -> None:
        """`out` [T, d], from `grad` [T, o]."""
        self.multiply_back(self.rounded(grad), out)


class FusedProjectionFp8(FusedProjection):
    """As `Joined`, but x and y need no room beside them."""

    def __init__(self, ops: ModuleType, parts: Sequence[Part]) -> None:
        super().__init__(parts)
        weight = self.storage[: self.out_width, : self.width]
        if not fits(weight):
            raise ValueError(
                f"a product of {self.width} x {self.out_width}; fp8 takes multiples of {STEP}"
            )
        self.spare = 0
        self._rounded = Rounded(ops, weight)

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        thin, _ = self.begin_forward(x, out)
        out.addmm_(thin, self._up.t())
        return thin

    def begin_forward(self, x: Tensor, out: Tensor) -> tuple[Tensor, LowRank | None]:
        thin = torch.mm(x, self._down.t())
        self._rounded.forward(x, out, self.bias)
        return thin, LowRank(thin, tuple(self._blocks(self._up)))

    def input_gradient(self, grad: Tensor, out: Tensor | None) -> Tensor:
        if out is None:
            return torch.mm(grad, self._up)
        thin, _ = self.begin_input_gradient(grad, out)
        out.addmm_(thin, self._down)
        return thin

    def begin_input_gradient(self, grad: Tensor, out: Tensor) -> tuple[Tensor, LowRank | None]:
        thin = torch.mm(grad, self._up)
        self._rounded.input_gradient(grad, out)
        return thin, LowRank(thin, (self._down.t(),))


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


def _multiply(
    rows: tuple[Tensor, Tensor],
    columns: Tensor,
    scales: Tensor,
    out: Tensor,
    bias: Tensor | None = None,
) -> None:
    """`out` [T, n] = rows [T, k] columns [n, k]ᵀ, both with scales, plus `bias` [n]. The multiplier
    writes bf16; an `out` of another type gets the exact product of the rounded operands.
    """
    left, left_scales = rows
    if out.dtype != torch.bfloat16:
        exact = (left.float() * left_scales[:, None]) @ (columns.float() * scales[:, None]).t()
        out.copy_(exact if bias is None else exact + bias)
        return
    torch._scaled_mm(  # noqa: SLF001 - has no public name yet
        left,
        columns.t(),
        scale_a=left_scales[:, None],
        scale_b=scales[None, :],
        bias=bias,
        out_dtype=out.dtype,
        use_fast_accum=True,
        out=out,
    )
