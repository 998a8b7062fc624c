"""A model and its tokenizer, from a folder, a hub name, or made here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import tiny_model
from .weights import Weights, random_weights, shape_of, take_weights

FILES = ["*.json", "*.jinja", "*.model", "*.safetensors", "*.txt"]
GENERATED = "generated-llama"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Weights on their device, the tokenizer, and the tokens that end an answer."""

    name: str
    weights: Weights
    tokenizer: Any
    ends: tuple[int, ...]


def load_model(source: str, *, dtype: str, device: str, made: bool = False, seed: int = 0) -> Model:
    """Load a model; ``source`` "" is the generated one of ``seed``.

    ``made``: weights of its shape are drawn at random, and of its files only the configuration and
    the tokenizer are read. Raises :class:`UnsupportedModel`, and what transformers raises.
    """
    from transformers import AutoConfig, AutoTokenizer

    folder = locate_model(source, seed)
    config = AutoConfig.from_pretrained(folder)
    shape_of(config)  # refused before anything large is read
    precision = {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    place = torch.device(device)
    if made:
        weights = random_weights(config, precision, place, seed)
        defaults: Any = None
    else:
        weights, defaults = _read(folder, precision, place)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ends = getattr(defaults, "eos_token_id", None) or config.eos_token_id or tokenizer.eos_token_id
    return Model(
        name=source or GENERATED,
        weights=weights,
        tokenizer=tokenizer,
        ends=tuple(token for token in _listed(ends) if token < weights.shape.vocabulary),
    )


def _listed(ends: Any) -> list[int]:
    """Tokens that end an answer: one, several or none. A tokenizer may have more than the model."""
    if ends is None:
        return []
    return list(ends) if isinstance(ends, list | tuple) else [ends]


def locate_model(source: str, seed: int = 0) -> str:
    """A folder on this node that holds the model's files; those of a hub name are fetched."""
    if not source:
        return str(tiny_model.ensure_model(seed))
    if Path(source).is_dir():
        return source
    from huggingface_hub import snapshot_download

    return str(snapshot_download(source, allow_patterns=FILES))


def _read(folder: str, dtype: torch.dtype, device: torch.device) -> tuple[Weights, Any]:
    """The weights of the files, and the generation settings that came with them."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return take_weights(model, device), model.generation_config
