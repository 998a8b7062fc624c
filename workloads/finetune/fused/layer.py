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
from .reference import LowRank, Normed

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

    # ---- forward ---------------------------------------------------------------------------------

    def forward(self, x: Tensor, tokens: Tokens, keep: Recompute | None) -> tuple[Tensor, Kept]:
        """The layer's output [T, d] and what `backward` needs; without `keep` there is none."""
        if keep is Recompute.LAYER:
            out, kept = self._forward(x, tokens, None)
            return out, Kept(kept.first)
        return self._forward(x, tokens, keep)

    def _forward(self, x: Tensor, tokens: Tokens, keep: Recompute | None) -> tuple[Tensor, Kept]:
        kept, middle = self._attention(x, tokens, keep=keep is not None)
        gate_up, missing = self._gate_up(kept, middle, complete=False)
        product = self.down.room_for_input(x.shape[0])
        width = self.form.ffn
        self.ops.swiglu(gate_up[:, : 2 * width], product[:, :width], missing)
        out = torch.empty_like(x)
        kept.h_down = self.down.forward(product, out)
        out += middle
        if keep is Recompute.NONE:
            kept.gate_up = gate_up
        return out, kept

    def _attention(self, x: Tensor, tokens: Tokens, *, keep: bool) -> tuple[Kept, Tensor]:
        """What is kept up to the middle, and the middle [T, d]."""
        form, count = self.form, x.shape[0]
        normed = self.qkv.room_for_input(count)
        kept = Kept(self.ops.rms_norm(x, self.norm, form.eps, normed[:, : x.shape[1]]))
        qkv = x.new_empty(count, self.qkv.out_width)
        kept.h_qkv = self.qkv.forward(normed, qkv)
        queries, keys, values = self._parts(qkv)
        for part in (queries, keys):
            self.ops.rotate(part, tokens.cos, tokens.sin, inverse=False, out=part)
        heads = Heads(*(part.unflatten(1, (-1, form.depth)) for part in (queries, keys, values)))
        kept.attended = attend(heads, tokens.where, form.scale, keep=keep)
        mixed = self.o.room_for_input(count)
        mixed[:, : self.o.width] = kept.attended.out
        middle = torch.empty_like(x)
        kept.h_o = self.o.forward(mixed, middle)
        middle += x
        return kept, middle

    def _gate_up(
        self, kept: Kept, middle: Tensor, *, complete: bool
    ) -> tuple[Tensor, LowRank | None]:
        """Gate and up with room beside them, [T, 2 f + R], and what is still to be added to them,
        which is nothing if they are to be `complete`.
        """
        normed = self.gate_up.room_for_input(middle.shape[0])
        inner = normed[:, : middle.shape[1]]
        kept.second = self.ops.rms_norm(middle, self.middle_norm, self.form.eps, inner)
        out = self.gate_up.room_for_output(middle.shape[0])
        inner, missing = out[:, : self.gate_up.out_width], None
        if complete:
            kept.h_gate_up = self.gate_up.forward(normed, inner)
        else:
            kept.h_gate_up, missing = self.gate_up.begin_forward(normed, inner)
        return out, missing

    def _parts(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        form = self.form
        own, shared = form.heads * form.depth, form.kv_heads * form.depth
        queries, keys, values = qkv.split([own, shared, shared], dim=1)
        return queries, keys, values

    # ---- backward --------------------------------------------------------------------------------

    def room_for_gradient(self, tokens: int) -> Tensor:
        """A buffer [T, d + R] as `backward` takes the gradient of the layer's output in."""
        return self.down.room_for_output(tokens)

    def backward(self, grad: Tensor, kept: Kept, tokens: Tokens, out: Tensor | None) -> None:
        """Adds to the adapters' gradients. `grad` is [T, d + R], `kept` is used up, and `out`
        [T, d] becomes the gradient of the layer's input; None where nobody needs it.
        """
        if kept.attended is None:
            _, kept = self._forward(kept.first.total, tokens, Recompute.NONE)
        middle_grad = self._backward_mlp(grad, kept)
        self._backward_attention(middle_grad, kept, tokens, out)

    def _backward_mlp(self, grad: Tensor, kept: Kept) -> Tensor:
        """The gradient of the middle, [T, d + R]."""
        second, width = _had(kept.second), self.down.out_width
        if kept.gate_up is None:
            kept.gate_up, _ = self._gate_up(kept, second.total, complete=True)
        gate_up, kept.gate_up = kept.gate_up, None
        product = grad.new_empty(grad.shape[0], self.form.ffn)
        thin, past = self.down.begin_input_gradient(grad, product)
        inner = gate_up[:, : 2 * self.form.ffn]
        self.ops.swiglu_backward(product, inner, past)
        self.down.add_adapter_gradients(grad, thin, product, _had(kept.h_down))
        del product
        normed_grad = torch.empty_like(second.total)
        thin = self.gate_up.input_gradient(gate_up, normed_grad)
        self.gate_up.add_adapter_gradients(gate_up, thin, second, _had(kept.h_gate_up))
        out = self.o.room_for_output(grad.shape[0])
        self.ops.rms_norm_backward(normed_grad, second, grad[:, :width], out[:, :width])
        return out

    def _backward_attention(
        self, grad: Tensor, kept: Kept, tokens: Tokens, out: Tensor | None
    ) -> None:
        first, attended = kept.first, _had(kept.attended)
        mixed_grad = torch.empty_like(attended.out)
        thin = self.o.input_gradient(grad, mixed_grad)
        self.o.add_adapter_gradients(grad, thin, attended.out, _had(kept.h_o))
        qkv_grad = self._backward_heads(mixed_grad, attended, tokens)
        kept.attended = None
        normed_grad = None if out is None else torch.empty_like(first.total)
        thin = self.qkv.input_gradient(qkv_grad, normed_grad)
        self.qkv.add_adapter_gradients(qkv_grad, thin, first, _had(kept.h_qkv))
        if out is not None:
            self.ops.rms_norm_backward(normed_grad, first, grad[:, : out.shape[1]], out)

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
