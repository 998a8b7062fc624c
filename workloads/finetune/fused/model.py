"""From a peft model to fused layers over the same tensors, and the passes over all layers.

The frozen matrices move into joined storages, and the model's own modules get views of them in
return: evaluation, generation and saving go on through transformers and peft, without a second
copy of anything. The adapter's parameters stay peft's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..data.packing import IGNORED, Batch
from .attention import documents
from .fp8 import FusedProjectionFp8, HeadFp8, fits
from .fused_projection import FusedProjection, Part
from .head import Head, linear_cross_entropy
from .layer import Form, Kept, Layer, Recompute, Tokens
from .memory import Outline
from .ops import operations
from .reference import Rows8
from .sharded import ShardGroup, Shards

FAMILIES = ("llama", "mistral", "qwen2")
ATTENTION, FFN = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
REMEDY = "pass --engine plain"
Join = Callable[[Sequence[Sequence[Part]]], list[FusedProjection]]


class NotFused(ValueError):
    """The model or its adapter is not of the kind that the fused engine knows."""


@dataclass(frozen=True, slots=True)
class Laid:
    """A micro-batch on the device: token ids [T], their layers' common parts, and what to predict
    [n] at which places [n].
    """

    ids: Tensor
    tokens: Tokens
    places: Tensor
    labels: Tensor


class FusedModel:
    """All layers of a peft model. Call `refresh` after each change of the adapter.

    With a `group`, the frozen matrices, which may be on the host until now, are held by its ranks
    together: all of them make the same passes, of whatever kind, also through transformers.
    """

    def __init__(
        self, peft_model: Any, *, fp8: bool = False, group: ShardGroup | None = None
    ) -> None:
        base = peft_model.get_base_model()
        check_config(base.config)
        self._body = base.model
        self.ops = operations(self._body.embed_tokens.weight.device)
        output = base.lm_head.weight
        self._head = HeadFp8(self.ops, output) if fp8 and fits(output) else Head(output)
        self.form = form_of(base.config)
        self.shards = None if group is None else Shards(group, self._body.norm.weight)
        join = self._joining(fp8)
        self.layers = [_layer(self.ops, self.form, block, join) for block in self._body.layers]
        self._left: list[tuple[int, int]] = []  # layers of the pass under way, and those after them
        if self.shards is not None:
            for index, block in enumerate(self._body.layers):
                block.register_forward_pre_hook(_entering(self.shards, index))

    def _joining(self, fp8: bool) -> Join:
        """How the storages of a layer are made of their projections."""
        if self.shards is not None:
            return self.shards.add
        if fp8:
            return lambda parts: [FusedProjectionFp8(self.ops, own) for own in parts]
        return lambda parts: [FusedProjection(own) for own in parts]

    def refresh(self) -> None:
        """Take over the adapter's values, which are trained in fp32."""
        if self.shards is not None:
            self.shards.stale()
            return
        for layer in self.layers:
            for joined in layer.joined:
                joined.refresh()

    def lay(self, batch: Batch) -> Laid:
        """`batch`, collated as one row on the host, on the model's device."""
        device = self._body.embed_tokens.weight.device
        where = documents(batch.position_ids)
        ids = _sent(batch.input_ids[0], device)
        labels = batch.labels[0, batch.predicting]
        if bool((labels == IGNORED).any()):
            raise ValueError("a place that predicts nothing was given as one that does")
        table = self._body.embed_tokens.weight
        cos, sin = self._body.rotary_emb(table, _sent(batch.position_ids, device))
        where = replace(where, starts=_sent(where.starts, device))
        tokens = Tokens(where, cos[0], sin[0])
        return Laid(ids, tokens, _sent(batch.predicting, device), _sent(labels, device))

    @torch.no_grad()
    def loss(self, laid: Laid) -> Tensor:
        """Summed cross entropy in nats, fp32 scalar."""
        self.begin_pass(backward=False)
        hidden, _ = self._forward(laid, None)
        return self._head_loss(hidden, laid, 1.0, None)

    @torch.no_grad()
    def accumulate(
        self,
        laid: Laid,
        scale: float,
        recompute: Recompute = Recompute.NONE,
        finished: Callable[[int], None] | None = None,
    ) -> Tensor:
        """The summed cross entropy, and the gradient of `scale` times it added to the adapter's.

        `finished(i)` is called when the gradients of layer i are complete, the last layer first.
        """
        self.begin_pass(backward=True)
        hidden, kept = self._forward(laid, recompute)
        last = self.layers[-1]
        grad = last.room_for_gradient(len(hidden))
        loss = self._head_loss(hidden, laid, scale, grad[:, : hidden.shape[1]])
        del hidden
        rows: Rows8 | None = None
        for index in reversed(range(len(self.layers))):
            below = self.layers[index - 1] if index else None
            out = below.room_for_gradient(len(grad)) if below else None
            layer = self._ready(index, index - 1)
            inner = out[:, : layer.down.out_width] if out is not None else None
            rows = layer.backward(grad, kept.pop(), laid.tokens, inner, rows)
            if finished is not None:
                finished(index)
            if out is not None:
                grad = out
        return loss

    def _forward(self, laid: Laid, recompute: Recompute | None) -> tuple[Tensor, list[Kept]]:
        """The last layer's output [T, d], and what each layer keeps."""
        hidden: Tensor = self._body.embed_tokens(laid.ids)
        beside: Tensor | None = None  # what is still to be added to it
        kept: list[Kept] = []
        for index in range(len(self.layers)):
            layer = self._ready(index, index + 1)
            hidden, beside, own = layer.forward(hidden, laid.tokens, recompute, beside)
            if recompute is not None:
                kept.append(own)
        return hidden if beside is None else hidden.add_(beside), kept

    @torch.no_grad()
    def accompany(self, *, backward: bool, finished: Callable[[int], None] | None = None) -> None:
        """A pass without a micro-batch, for the ranks that hold the weights together with this one
        and have one: forward, as of `loss`, or that and `backward`, as of `accumulate`.
        """
        self.begin_pass(backward=backward)
        for index in range(len(self.layers)):
            self._ready(index, index + 1)
        for index in reversed(range(len(self.layers) if backward else 0)):
            self._ready(index, index - 1)
            if finished is not None:
                finished(index)

    def begin_pass(self, *, backward: bool) -> None:
        """The next layers are those of a new pass."""
        if self.shards is not None:
            count = len(self.layers)
            self._left = [(index, index + 1) for index in range(count)]
            if backward:
                self._left += [(index, index - 1) for index in reversed(range(count))]

    def finish_pass(self) -> None:
        """Gather what is left of a pass that failed here, since the other ranks wait for it."""
        while self._left:
            self._ready(*self._left[0])

    def _ready(self, index: int, following: int) -> Layer:
        """A layer whose weights are there; the `following` one is computed next."""
        if self.shards is not None:
            self.shards.enter(index, following)
            del self._left[:1]
        return self.layers[index]

    def _head_loss(self, hidden: Tensor, laid: Laid, scale: float, grad: Tensor | None) -> Tensor:
        """The final norm, the output layer and the loss, at the places that predict something."""
        norm = self._body.norm.weight
        chosen = hidden[laid.places]
        normed = torch.empty_like(chosen)
        kept = self.ops.rms_norm(chosen, norm, self.form.eps, normed)
        loss = linear_cross_entropy(
            self.ops, normed, self._head, laid.labels, scale, grad=grad is not None
        )
        if grad is not None:
            of_chosen = torch.empty_like(chosen)
            self.ops.rms_norm_backward(normed, kept, None, of_chosen)
            grad.zero_()
            grad[laid.places] = of_chosen
        return loss


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """On its way to the device, behind what that is doing: the host goes on."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _entering(shards: Shards, index: int) -> Callable[..., None]:
    """What happens before transformers computes a block: its weights are gathered."""
    return lambda *_: shards.enter(index, index + 1)


def check_config(config: Any) -> None:
    """Raises :class:`NotFused` for what the layers here would compute otherwise."""
    if config.model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise NotFused(f"a model of type {config.model_type} (known: {known}); {REMEDY}")
    if config.hidden_act != "silu":
        raise NotFused(f"the activation {config.hidden_act} (known: silu); {REMEDY}")
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True):
        raise NotFused(f"attention over a window of {window} tokens; {REMEDY}")


def outline(config: Any) -> Outline:
    """Sizes, as far as memory is concerned. Raises :class:`NotFused` for models of other kinds."""
    check_config(config)
    return Outline(
        form=form_of(config),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        tied=config.tie_word_embeddings,
    )


def form_of(config: Any) -> Form:
    depth = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Form(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        depth=depth,
        ffn=config.intermediate_size,
        eps=config.rms_norm_eps,
        scale=depth**-0.5,
    )


def _layer(ops: ModuleType, form: Form, block: Any, join: Join) -> Layer:
    """Over peft's linear modules, by the inputs that they share; their frozen weights become views
    of the storages that `join` makes.
    """
    shared = (
        [getattr(block.self_attn, name) for name in ATTENTION],
        [block.self_attn.o_proj],
        [getattr(block.mlp, name) for name in FFN],
        [block.mlp.down_proj],
    )
    joined = join([[_part(projection) for projection in own] for own in shared])
    for projections, storage in zip(shared, joined, strict=True):
        for projection, weight in zip(projections, storage.weights, strict=True):
            projection.get_base_layer().weight.data = weight
    norms = block.input_layernorm.weight, block.post_attention_layernorm.weight
    qkv, o, gate_up, down = joined
    return Layer(ops, form, norms, (qkv, o, gate_up, down))


def _part(projection: Any) -> Part:
    adapters = list(getattr(projection, "lora_A", {}))
    if len(adapters) != 1 or projection.merged:
        raise NotFused(f"a projection with {len(adapters)} LoRA adapters, not one; {REMEDY}")
    (name,) = adapters
    if not isinstance(projection.lora_dropout[name], torch.nn.Identity):
        raise NotFused("LoRA with dropout; pass --lora-dropout 0 or --engine plain")
    if projection.use_dora.get(name) or projection.lora_B[name].bias is not None:
        raise NotFused(f"DoRA or a LoRA bias; {REMEDY}")
    linear = projection.get_base_layer()
    return Part(
        weight=linear.weight.data,
        bias=None if linear.bias is None else linear.bias.data,
        a=projection.lora_A[name].weight,
        b=projection.lora_B[name].weight,
        scale=projection.scaling[name],
    )
