"""Decoders by their sizes: named ones, and those of a model's config.json; nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, LlamaConfig, Qwen2Config

from orchestrate_serving.builtin.weights import shape_of

# What a file must say: transformers would fill in those of Llama 7B.
SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
    "max_position_embeddings",
)  # fmt: skip
# Sizes as in their config.json on the model hub. How positions turn changes no size.
SHAPES = {
    "tiny": LlamaConfig(
        hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=512, max_position_embeddings=2048,
    ),
    "qwen2-7b": Qwen2Config(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, vocab_size=152064, max_position_embeddings=131072,
    ),
    "llama-3.1-8b": LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256, max_position_embeddings=131072,
        rms_norm_eps=1e-5,
    ),
}  # fmt: skip


def read_config(path: Path) -> Any:
    """Of a config.json. Raises ``ValueError`` that says what is wrong with it, and ``OSError``."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    required = ("model_type", *SIZES)
    missing = [name for name in required if not isinstance(entries, dict) or name not in entries]
    if missing:
        raise ValueError(f"{path} is no configuration of a decoder: no {', '.join(missing)}")
    try:
        config = AutoConfig.for_model(str(entries.pop("model_type")), **entries)
        shape_of(config)
    except (ValueError, StrictDataclassError) as error:
        raise ValueError(f"{path}: {error}") from None
    if config.num_attention_heads % config.num_key_value_heads:
        raise ValueError(f"{path}: num_key_value_heads does not divide num_attention_heads")
    return config


def matrix_parameters(config: Any) -> int:
    """Weights of all matrices, with embedding and head."""
    shape = shape_of(config)
    attention = shape.hidden * (shape.qkv + shape.heads * shape.head_size)
    layer = attention + 3 * shape.hidden * shape.intermediate
    tables = 1 if config.tie_word_embeddings else 2
    return shape.layers * layer + tables * shape.vocabulary * shape.hidden
