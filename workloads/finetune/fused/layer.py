"""One decoder layer, forward and backward, over T tokens laid end to end.

    x -> norm -> q k v -> rotate -> attention -> o -> + x = middle -> norm -> gate up -> swiglu
      -> down -> + middle

What a layer keeps from its forward pass is what cannot be had again without a matrix product: its
input, queries, keys and values, the attention's output, the middle and gate and up. The swiglu
product is made again. `Recompute` trades memory for products.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

import torch
from torch import Tensor

from .attention import Attended, Documents, Heads, attend
from .fused_projection import FusedProjection
from .reference import Normed, Rows8

T = TypeVar("T")


class Recompute(enum.Enum):
    """What is computed again in the backward pass."""

    NONE = "none"
    MLP = "mlp"  # gate and up: 2 f of the d + 2 f + ... values that a token has in a layer
    LAYER = "layer"  # all but the layer's input


@dataclass(frozen=True, slots=True)
class Form:
    """Sizes and numbers that all layers share."""

    heads: int
    kv_heads: int
    depth: int  # of a head
    ffn: int
    eps: float
    scale: float  # of attention scores

    @property
    def qkv(self) -> int:
        """Width of a token's queries, keys and values together."""
        return (self.heads + 2 * self.kv_heads) * self.depth


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a micro-batch's layers share: documents, and the rotary table [T, D] twice."""

    where: Documents
    cos: Tensor
    sin: Tensor


@dataclass(slots=True)
class Kept:
    """What a layer keeps for its backward pass. Buffers have room for an adapter's columns."""

    first: Normed
    attended: Attended | None = None
    second: Normed | None = None
    gate_up: Tensor | None = None
    h_qkv: Tensor | None = None
    h_o: Tensor | None = None
    h_gate_up: Tensor | None = None
    h_down: Tensor | None = None


class Layer:
    """The tensors of one decoder layer. The norms' weights are frozen, like the matrices."""

    def __init__(
        self,
        ops: ModuleType,
        form: Form,
        norms: tuple[Tensor, Tensor],
        joined: tuple[FusedProjection, FusedProjection, FusedProjection, FusedProjection],
    ) -> None:
        self.ops = ops
        self.form = form
        self.norm, self.middle_norm = norms
        self.joined = joined
        self.qkv, self.o, self.gate_up, self.down = joined
        self._rounds = self.qkv.rounds

    # ---- forward ---------------------------------------------------------------------------------

    def forward(
        self, x: Tensor, tokens: Tokens, keep: Recompute | None, added: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Kept]:
        """The layer's output in two parts [T, d], whose sum it is, the second one kept by this
        layer; and what `backward` needs, which without `keep` is nothing. What is `added` to the
        input is so in place, where the first norm passes over it anyway.
        """
        if keep is Recompute.LAYER:
            out, beside, kept = self._forward(x, tokens, None, added)
            return out, beside, Kept(kept.first)
        return self._forward(x, tokens, keep, added)

    def _forward(
        self, x: Tensor, tokens: Tokens, keep: Recompute | None, added: Tensor | None
    ) -> tuple[Tensor, Tensor, Kept]:
        kept, middle = self._attention(x, tokens, added, keep=keep is not None)
        gate_up = self._gate_up(kept, middle, x)
        product = self.down.room_for_input(x.shape[0])
        rows = self._gated(gate_up, product[:, : self.form.ffn])
        out = torch.empty_like(x)
        kept.h_down = self.down.forward(product, out, rows)
        if keep is Recompute.NONE:
            kept.gate_up = gate_up
        return out, middle, kept

    def _attention(
        self, x: Tensor, tokens: Tokens, added: Tensor | None, *, keep: bool
    ) -> tuple[Kept, Tensor]:
        """What is kept up to the middle, and the middle [T, d] but for x."""
        form, count = self.form, x.shape[0]
        normed = self.qkv.room_for_input(count)
        first, rows = self._normed(x, self.norm, normed[:, : x.shape[1]], added, self.qkv)
        kept = Kept(first)
        qkv = x.new_empty(count, self.qkv.out_width)
        kept.h_qkv = self.qkv.forward(normed, qkv, rows)
        queries, keys, values = self._parts(qkv)
        both = qkv[:, : queries.shape[1] + keys.shape[1]]
        self.ops.rotate(both, tokens.cos, tokens.sin, inverse=False, out=both)
        heads = Heads(*(part.unflatten(1, (-1, form.depth)) for part in (queries, keys, values)))
        kept.attended = attend(heads, tokens.where, form.scale, keep=keep)
        middle = torch.empty_like(x)
        kept.h_o = self.o.forward(self.o.input_of(kept.attended.out), middle)
        return kept, middle

    def _gate_up(self, kept: Kept, middle: Tensor, added: Tensor | None) -> Tensor:
        """Gate and up with room beside them, [T, 2 f + R]. What is `added` to the middle is so in
        place.
        """
        normed = self.gate_up.room_for_input(middle.shape[0])
        inner = normed[:, : middle.shape[1]]
        kept.second, rows = self._normed(middle, self.middle_norm, inner, added, self.gate_up)
        out = self.gate_up.room_for_output(middle.shape[0])
        kept.h_gate_up = self.gate_up.forward(normed, out[:, : self.gate_up.out_width], rows)
        return out

    # What is made for a product `by` a projection comes in 8 bits, too, if that multiplies these.

    def _normed(
        self, total: Tensor, weight: Tensor, out: Tensor, added: Tensor | None, by: FusedProjection
    ) -> tuple[Normed, Rows8 | None]:
        """`out` becomes the norm of `total`, to which something may be `added`."""
        eps = self.form.eps
        if self._rounds:
            both: tuple[Normed, Rows8] = self.ops.rms_norm_rounded(
                total, weight, eps, out, added, spare=by.spare8
            )
            return both
        return self.ops.rms_norm(total, weight, eps, out, added), None

    def _gated(self, gate_up: Tensor, out: Tensor) -> Rows8 | None:
        """`out` [T, f] becomes the product of gate and up, [T, 2 f + R]."""
        both = gate_up[:, : 2 * self.form.ffn]
        if self._rounds:
            rows: Rows8 = self.ops.swiglu_rounded(both, out, spare=self.down.spare8)
            return rows
        self.ops.swiglu(both, out)
        return None

    def _gated_gradient(self, grad: Tensor, gate_up: Tensor) -> Rows8 | None:
        """Gate and up become their gradient, `grad` [T, f] their product again."""
        both = gate_up[:, : 2 * self.form.ffn]
        if self._rounds:
            rows: Rows8 = self.ops.swiglu_backward_rounded(grad, both, spare=self.gate_up.spare8)
            return rows
        self.ops.swiglu_backward(grad, both)
        return None

    def _norm_gradient(
        self, grad: Tensor, normed: Normed, residual: Tensor, out: Tensor, by: FusedProjection
    ) -> Rows8 | None:
        """`out` becomes the gradient of the norm's input."""
        if self._rounds:
            rows: Rows8 = self.ops.rms_norm_backward_rounded(
                grad, normed, residual, out, spare=by.spare8
            )
            return rows
        self.ops.rms_norm_backward(grad, normed, residual, out)
        return None

    def _parts(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        form = self.form
        own, shared = form.heads * form.depth, form.kv_heads * form.depth
        queries, keys, values = qkv.split([own, shared, shared], dim=1)
        return queries, keys, values

    # ---- backward --------------------------------------------------------------------------------

    def room_for_gradient(self, tokens: int) -> Tensor:
        """A buffer [T, d + R] as `backward` takes the gradient of the layer's output in."""
        return self.down.room_for_output(tokens)

    def backward(
        self,
        grad: Tensor,
        kept: Kept,
        tokens: Tokens,
        out: Tensor | None,
        rows: Rows8 | None = None,
    ) -> Rows8 | None:
        """Adds to the adapters' gradients. `grad` is [T, d + R], its `rows` in 8 bits may be known,
        `kept` is used up, and `out` [T, d] becomes the gradient of the layer's input, whose rows in
        8 bits are returned if products are made of these; None where nobody needs it.
        """
        if kept.attended is None:
            _, _, kept = self._forward(kept.first.total, tokens, Recompute.NONE, None)
        middle_grad, rows = self._backward_mlp(grad, kept, rows)
        return self._backward_attention(middle_grad, kept, tokens, out, rows)

    def _backward_mlp(
        self, grad: Tensor, kept: Kept, rows: Rows8 | None
    ) -> tuple[Tensor, Rows8 | None]:
        """The gradient of the middle, [T, d + R], and its rows in 8 bits."""
        second, width = _had(kept.second), self.down.out_width
        if kept.gate_up is None:
            kept.gate_up = self._gate_up(kept, second.total, None)
        gate_up, kept.gate_up = kept.gate_up, None
        product = grad.new_empty(grad.shape[0], self.form.ffn)
        thin = self.down.input_gradient(grad, product, rows)
        rows = self._gated_gradient(product, gate_up)
        self.down.add_adapter_gradients(grad, thin, product, _had(kept.h_down))
        del product
        normed_grad = torch.empty_like(second.total)
        thin = self.gate_up.input_gradient(gate_up, normed_grad, rows)
        self.gate_up.add_adapter_gradients(gate_up, thin, second, _had(kept.h_gate_up))
        out = self.o.room_for_output(grad.shape[0])
        inner = out[:, :width]
        rows = self._norm_gradient(normed_grad, second, grad[:, :width], inner, self.o)
        return out, rows

    def _backward_attention(
        self, grad: Tensor, kept: Kept, tokens: Tokens, out: Tensor | None, rows: Rows8 | None
    ) -> Rows8 | None:
        first, attended = kept.first, _had(kept.attended)
        mixed_grad = torch.empty_like(attended.out)
        thin = self.o.input_gradient(grad, mixed_grad, rows)
        self.o.add_adapter_gradients(grad, thin, attended.out, _had(kept.h_o))
        qkv_grad = self._backward_heads(mixed_grad, attended, tokens)
        kept.attended = None
        normed_grad = None if out is None else torch.empty_like(first.total)
        thin = self.qkv.input_gradient(qkv_grad, normed_grad)
        self.qkv.add_adapter_gradients(qkv_grad, thin, first, _had(kept.h_qkv))
        if out is None or normed_grad is None:
            return None
        residual = grad[:, : out.shape[1]]  # the layer below is of the same widths
        return self._norm_gradient(normed_grad, first, residual, out, self.down)

    def _backward_heads(self, grad: Tensor, attended: Attended, tokens: Tokens) -> Tensor:
        """The gradient of q, k and v before they were rotated, [T, O + R]."""
        out = self.qkv.room_for_output(grad.shape[0])
        queries, keys, values = self._parts(out[:, : self.qkv.out_width])
        of = attended.backward(grad)
        for part, place in ((of.queries, queries), (of.keys, keys)):
            self.ops.rotate(part.flatten(1), tokens.cos, tokens.sin, inverse=True, out=place)
        values.copy_(of.values.flatten(1))
        return out


def _had(kept: T | None) -> T:
    """What a forward pass that keeps has kept."""
    if kept is None:
        raise RuntimeError("a layer's backward pass needs a forward pass that keeps")
    return kept
