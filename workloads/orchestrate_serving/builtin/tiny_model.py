"""A small Llama-architecture model with random weights, and its tokenizer, made here.

The weights are whole numbers out of a hash, scaled: every machine makes the same bytes, whatever
its processor and its versions of libraries round like. Made once per node and kept in a cache,
under a name that holds the digest of everything that goes into it.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import words

SPECIAL_TOKENS = ("<|pad|>", "<|begin|>", "<|end|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' + message.role) }}{% endif %}"
    "{{ message.role }}: {{ message.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
VOCABULARY_SIZE = 1024
CONTEXT_TOKENS = 4096
HIDDEN_SIZE = 128
LAYERS = 4
END_SCALE = 1.5  # so that about every fourth answer ends by itself
TEXTS = 400  # generated prompts that the tokenizer learns from


def cached_model(seed: int, cache_dir: str = "") -> Path:
    """Return the folder where this node keeps, or will keep, the model of this seed."""
    return models_folder(cache_dir) / f"tiny-{recipe_digest(str(seed), __file__)[:16]}"


def models_folder(cache_dir: str = "") -> Path:
    """Where models that are made here are kept: ``cache_dir``, or a folder in the user's cache."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orchestrate-models"
    return Path(cache_dir or root)


def ensure_model(seed: int, cache_dir: str = "") -> Path:
    """Make the model unless it is in the cache already; return its folder, which is complete."""
    target = cached_model(seed, cache_dir)
    if not target.exists():
        with published(target) as folder:
            _make(folder, seed)
    return target


def recipe_digest(what: str, *sources: str) -> str:
    """Of ``what``, the libraries and the ``sources`` (files) that a model is made by."""
    digest = hashlib.sha256(what.encode())
    for library in ("torch", "transformers", "tokenizers"):
        digest.update(version(library).encode())
    for source in (*sources, words.__file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()


@contextmanager
def published(target: Path) -> Iterator[Path]:
    """Give a folder to fill that appears under its name only when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield folder
        try:
            folder.rename(target)
        except OSError:  # another rank on this node was faster: its content is the same
            if not target.exists():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(folder: Path, seed: int) -> None:
    from safetensors.torch import save_file

    tokenizer = wrap_tokenizer(train_tokenizer(VOCABULARY_SIZE, prompt_texts()))
    model = _new_model(tokenizer)
    weights = {
        name: _random_weights(f"{seed} {name}", parameter)
        for name, parameter in model.state_dict().items()
    }
    weights["lm_head.weight"][tokenizer.eos_token_id] *= END_SCALE
    model.config.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)


def _random_weights(name: str, like: torch.Tensor) -> torch.Tensor:
    """Uniform values that keep the scale of what passes through; norms stay at 1."""
    if like.ndim == 1:
        return torch.ones(like.shape)
    noise = bytearray(hashlib.shake_256(name.encode()).digest(2 * like.numel()))
    whole = torch.frombuffer(noise, dtype=torch.int16).reshape(like.shape)
    bound = 1.0 if "embed" in name else math.sqrt(3 / like.shape[1])
    return whole.float() * (bound / 2**15)


def _new_model(tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        architectures=[LlamaForCausalLM.__name__],
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN_SIZE,
        intermediate_size=3 * HIDDEN_SIZE,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def prompt_texts() -> Iterator[str]:
    """What a tokenizer learns from: prompts as :mod:`..words` makes them."""
    return (words.generate_text(n, seed=0, words=64) for n in range(TEXTS))


def train_tokenizer(vocabulary: int, texts: Iterable[str]) -> Any:
    """A byte-level BPE of at most so many tokens that puts a begin token before every text, as
    Llama's does; as the library `tokenizers` has it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    begin = (SPECIAL_TOKENS[1], tokenizer.token_to_id(SPECIAL_TOKENS[1]))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL_TOKENS[1]} $A", special_tokens=[begin]
    )
    return tokenizer


def wrap_tokenizer(tokenizer: Any) -> Any:
    """The same as transformers has it, with a chat template."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL_TOKENS[0],
        bos_token=SPECIAL_TOKENS[1],
        eos_token=SPECIAL_TOKENS[2],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
