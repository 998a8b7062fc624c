"""Weights of a Llama or Qwen2 model as the decoder wants them: projections of one input joined.

Both families are the same decoder: RMS norm, attention with grouped key-value heads and rotary
positions, a gated MLP; Qwen2 adds biases to queries, keys and values
(``transformers/models/{llama,qwen2}/modeling_*.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

FAMILIES = frozenset({"llama", "mistral", "qwen2"})
# Positions are tables here; the other kinds change with the length of the text.
ROTARY_KINDS = frozenset({"default", "linear", "llama3", "yarn"})


class UnsupportedModel(ValueError):
    """A model that this engine cannot run, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a decoder; ``context`` is the longest text that its positions are made for."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    context: int
    epsilon: float

    @property
    def qkv(self) -> int:
        """Width of queries, keys and values side by side."""
        return (self.heads + 2 * self.kv_heads) * self.head_size


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One layer. Matrices are (out, in), as ``torch.nn.Linear`` has them."""

    attention_norm: torch.Tensor  # (hidden,)
    qkv: torch.Tensor  # (qkv, hidden)
    qkv_bias: torch.Tensor | None  # (qkv,)
    out: torch.Tensor  # (hidden, heads * head_size)
    mlp_norm: torch.Tensor  # (hidden,)
    gate_up: torch.Tensor  # (2 * intermediate, hidden)
    down: torch.Tensor  # (hidden, intermediate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A whole model. ``cos`` and ``sin`` are (context, head_size) in the model's precision."""

    shape: Shape
    embedding: torch.Tensor  # (vocabulary, hidden)
    layers: tuple[LayerWeights, ...]
    norm: torch.Tensor  # (hidden,)
    head: torch.Tensor  # (vocabulary, hidden)
    cos: torch.Tensor
    sin: torch.Tensor

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype


def shape_of(config: Any) -> Shape:
    """The sizes that a configuration of transformers says. Raises :class:`UnsupportedModel`."""
    _check(config)
    heads = config.num_attention_heads
    return Shape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=heads,
        kv_heads=config.num_key_value_heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
        intermediate=config.intermediate_size,
        vocabulary=config.vocab_size,
        context=config.max_position_embeddings,
        epsilon=config.rms_norm_eps,
    )


def _check(config: Any) -> None:
    """Refuse what would be computed wrongly."""
    if config.model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UnsupportedModel(f"model type {config.model_type} is none of {known}")
    windows = getattr(config, "layer_types", None) or ()
    if any(kind != "full_attention" for kind in windows):
        raise UnsupportedModel("layers with a sliding window are not supported")
    if config.model_type == "mistral" and getattr(config, "sliding_window", None):
        raise UnsupportedModel("layers with a sliding window are not supported")
    if getattr(config, "mlp_bias", False) or config.hidden_act != "silu":
        raise UnsupportedModel("an MLP with biases or another activation than silu is unsupported")
    if _has_output_bias(config):
        raise UnsupportedModel("a bias after attention is not supported")
    kind = _rotary_kind(config)
    if kind not in ROTARY_KINDS:
        raise UnsupportedModel(f"rotary positions of kind {kind} are not supported")


def _has_output_bias(config: Any) -> bool:
    return config.model_type != "qwen2" and bool(getattr(config, "attention_bias", False))


def _rotary_kind(config: Any) -> str:
    rotary = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return str(rotary.get("rope_type", "default"))


def take_weights(model: Any, device: torch.device) -> Weights:
    """The weights of a causal language model of transformers, moved layer by layer, so that at
    most one layer is there twice. The model cannot be used any more.
    """
    shape, inner = shape_of(model.config), model.model
    embedding = inner.embed_tokens.weight.detach().to(device)
    tied = model.lm_head.weight.data_ptr() == inner.embed_tokens.weight.data_ptr()
    head = embedding if tied else model.lm_head.weight.detach().to(device)
    layers = []
    for place, layer in enumerate(inner.layers):
        layers.append(_layer(layer, device))
        inner.layers[place] = torch.nn.Identity()
    cos, sin = rotary_tables(model.config, embedding.dtype, device)
    return Weights(
        shape=shape,
        embedding=embedding,
        layers=tuple(layers),
        norm=inner.norm.weight.detach().to(device),
        head=head,
        cos=cos,
        sin=sin,
    )


def _layer(layer: Any, device: torch.device) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    biased = attention.q_proj.bias is not None
    return LayerWeights(
        attention_norm=layer.input_layernorm.weight.detach().to(device),
        qkv=torch.cat([each.weight.detach().to(device) for each in projections]),
        qkv_bias=torch.cat([e.bias.detach().to(device) for e in projections]) if biased else None,
        out=attention.o_proj.weight.detach().to(device),
        mlp_norm=layer.post_attention_layernorm.weight.detach().to(device),
        gate_up=torch.cat([e.weight.detach().to(device) for e in (mlp.gate_proj, mlp.up_proj)]),
        down=mlp.down_proj.weight.detach().to(device),
    )


def random_weights(config: Any, dtype: torch.dtype, device: torch.device, seed: int) -> Weights:
    """Weights of the model's shape without its files, made on the device: normal values with the
    deviation that the configuration says, norms of 1, biases of 0.
    """
    shape = shape_of(config)
    generator = torch.Generator(device).manual_seed(seed)
    deviation = getattr(config, "initializer_range", 0.02)

    def normal(*size: int) -> torch.Tensor:
        made = torch.empty(*size, dtype=dtype, device=device)
        return made.normal_(0.0, deviation, generator=generator)

    def ones() -> torch.Tensor:
        return torch.ones(shape.hidden, dtype=dtype, device=device)

    biased = config.model_type == "qwen2"
    bias = torch.zeros(shape.qkv, dtype=dtype, device=device) if biased else None
    layers = tuple(_random_layer(shape, normal, ones, bias) for _ in range(shape.layers))
    cos, sin = rotary_tables(config, dtype, device)
    embedding = normal(shape.vocabulary, shape.hidden)
    tied = getattr(config, "tie_word_embeddings", False)
    return Weights(
        shape=shape,
        embedding=embedding,
        layers=layers,
        norm=ones(),
        head=embedding if tied else normal(shape.vocabulary, shape.hidden),
        cos=cos,
        sin=sin,
    )


def _random_layer(
    shape: Shape,
    normal: Callable[..., torch.Tensor],
    ones: Callable[[], torch.Tensor],
    bias: torch.Tensor | None,
) -> LayerWeights:
    return LayerWeights(
        attention_norm=ones(),
        qkv=normal(shape.qkv, shape.hidden),
        qkv_bias=bias,
        out=normal(shape.hidden, shape.heads * shape.head_size),
        mlp_norm=ones(),
        gate_up=normal(2 * shape.intermediate, shape.hidden),
        down=normal(shape.hidden, shape.intermediate),
    )


def rotary_tables(
    config: Any, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every position, (context, head_size) each, as transformers makes them."""
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    rotary = LlamaRotaryEmbedding(config=config).to(device)
    positions = torch.arange(config.max_position_embeddings, device=device)[None]
    like = torch.empty(0, dtype=dtype, device=device)
    with torch.no_grad():
        cos, sin = rotary(like, positions)
    return cos[0], sin[0]
