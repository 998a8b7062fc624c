"""Decoders by their sizes: named ones, and those of a model's config.json; nothing is fetched."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from orchestrate_models.shapes import DENSE
from orchestrate_serving.builtin.weights import shape_of

# What a file must say: transformers would fill in those of Llama 7B.
SIZES = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size",
    "max_position_embeddings",
)  # fmt: skip
SHAPES = {name: deepcopy(DENSE[name]) for name in ("tiny", "qwen2-7b", "llama-3.1-8b")}
# As the base model's config.json says; the shared shape has those of the Instruct model.
SHAPES["qwen2-7b"].max_position_embeddings = 131072


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
