"""A model and its tokenizer, from a folder, a hub name, or made here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import tiny_model
from .weights import UnsupportedModel, Weights, random_weights, shape_of, take_weights

FILES = ["*.json", "*.jinja", "*.model", "*.safetensors", "*.txt"]
GENERATED = "generated-llama"
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
# Some chat templates write today's date into the prompt: answers would depend on the day.
DATE = "26 Jul 2024"
# Of a configuration that does not say how long a text may be.
USUAL_CONTEXT = 4096


class UnusableText(ValueError):
    """A prompt that the tokenizer or its chat template refuses, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Weights on their device, the tokenizer, and the tokens that end an answer."""

    name: str
    weights: Weights
    tokenizer: Any
    ends: tuple[int, ...]

    @property
    def vocabulary(self) -> int:
        return self.weights.shape.vocabulary

    @property
    def context(self) -> int:
        """The longest text in tokens, prompt and answer."""
        return self.weights.shape.context

    @property
    def device(self) -> torch.device:
        return self.weights.device

    @property
    def dtype(self) -> torch.dtype:
        return self.weights.dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """A model of a family that the decoder does not know, as transformers computes it; ``why`` it
    is one.
    """

    name: str
    network: Any
    tokenizer: Any
    ends: tuple[int, ...]
    why: str

    @property
    def vocabulary(self) -> int:
        return int(self.network.config.get_text_config().vocab_size)

    @property
    def context(self) -> int:
        config = self.network.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or USUAL_CONTEXT)

    @property
    def device(self) -> torch.device:
        found: torch.device = self.network.device
        return found

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = self.network.dtype
        return found


def load_model(
    source: str,
    *,
    dtype: str,
    device: str,
    made: bool = False,
    seed: int = 0,
    shape: str = "",
    cache_dir: str = "",
) -> Model:
    """Load a model; ``source`` "" is the named ``shape`` with random weights, or the generated one
    of ``seed``, which are kept in ``cache_dir``.

    ``made``: weights of its shape are drawn at random, and of its files only the configuration and
    the tokenizer are read. Raises :class:`UnsupportedModel`, ``ValueError`` for weights that the
    device has no room for, and what transformers raises.
    """
    folder = locate_model(source, seed, cache_dir, shape)
    config = _config(folder)
    shape_of(config)  # refused before anything large is read
    precision, place = PRECISIONS[dtype], torch.device(device)
    _require_room(config, precision, place)
    if made or shape:
        weights = random_weights(config, precision, place, seed)
        defaults: Any = None
    else:
        network = _network(folder, precision)
        weights, defaults = take_weights(network, place), network.generation_config
    tokenizer = _tokenizer(folder)
    ends = _ends(defaults, config, tokenizer, weights.shape.vocabulary)
    return Model(name=source or shape or GENERATED, weights=weights, tokenizer=tokenizer, ends=ends)


def load_any_model(
    source: str,
    *,
    dtype: str,
    device: str,
    made: bool = False,
    seed: int = 0,
    shape: str = "",
    cache_dir: str = "",
) -> Model | HubModel:
    """The same; a family that the decoder does not know is left to transformers, unless weights are
    to be drawn. Raises :class:`UnsupportedModel`, and what transformers raises.
    """
    try:
        return load_model(
            source,
            dtype=dtype,
            device=device,
            made=made,
            seed=seed,
            shape=shape,
            cache_dir=cache_dir,
        )
    except UnsupportedModel as error:
        if made or shape:
            raise
        return load_hub_model(source, dtype=dtype, device=device, why=str(error))


def load_hub_model(source: str, *, dtype: str, device: str, why: str) -> HubModel:
    """As transformers loads it; raises what transformers raises."""
    folder = locate_model(source)
    network = _network(folder, PRECISIONS[dtype]).to(device).eval()
    tokenizer = _tokenizer(folder)
    vocabulary = network.config.get_text_config().vocab_size
    ends = _ends(network.generation_config, network.config, tokenizer, vocabulary)
    return HubModel(name=source, network=network, tokenizer=tokenizer, ends=ends, why=why)


def locate_model(source: str, seed: int = 0, cache_dir: str = "", shape: str = "") -> str:
    """A folder on this node that holds the model's files; those of a hub name are fetched, and of a
    named ``shape`` there are only its configuration and a tokenizer.
    """
    if shape and not source:
        from orchestrate_models.shape_folder import ensure_shape_folder

        return str(ensure_shape_folder(shape, cache_dir))
    if not source:
        return str(tiny_model.ensure_model(seed, cache_dir))
    if Path(source).is_dir():
        return source
    from huggingface_hub import snapshot_download

    return str(snapshot_download(source, allow_patterns=FILES))


def encode_text(tokenizer: Any, text: str, *, special: bool = True) -> tuple[int, ...]:
    """The text's tokens, with those that the tokenizer puts around a text if ``special``. Raises
    :class:`UnusableText`.
    """
    try:
        tokens = tokenizer(text, add_special_tokens=special)["input_ids"]
    except (TypeError, UnicodeError):  # half of a surrogate pair, which JSON can write
        raise UnusableText("the prompt is no text of Unicode") from None
    if not tokens:
        raise UnusableText("prompt is empty")
    return tuple(tokens)


def encode_chat(tokenizer: Any, messages: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    """The tokens of a chat, by the tokenizer's template. Raises :class:`UnusableText`."""
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, date_string=DATE
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise UnusableText(f"the chat template refuses the messages: {error}") from None
    return encode_text(tokenizer, str(text), special=False)


def _require_room(config: Any, dtype: torch.dtype, device: torch.device) -> None:
    """A host would end the process, or another one, without a word."""
    from orchestrate_models.memory_fit import MemoryNeed, parameter_count, require_fit

    need = MemoryNeed(parts={"weights": parameter_count(config) * dtype.itemsize})
    require_fit(need, device, 1, "take a smaller model or shape, or a node with more memory")


def _config(folder: str) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)


def _tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _network(folder: str, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def _ends(defaults: Any, config: Any, tokenizer: Any, vocabulary: int) -> tuple[int, ...]:
    """Tokens that end an answer: one, several or none. A tokenizer may have more than the model."""
    ends = getattr(defaults, "eos_token_id", None)
    if ends is None:
        ends = getattr(config, "eos_token_id", None)
    if ends is None:
        ends = tokenizer.eos_token_id
    found = [] if ends is None else list(ends) if isinstance(ends, list | tuple) else [ends]
    return tuple(token for token in found if token < vocabulary)
