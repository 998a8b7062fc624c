"""A known shape as a folder that transformers reads: its configuration, and a tokenizer made here.

The tokenizer has as many tokens as the model, for random weights choose any of them. It knows the
words of generated prompts, and of made-up ones each half is a token: about what those of trained
models do. What is left of the vocabulary are fillers, whose text is their name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

from orchestrate_serving.builtin import tiny_model
from orchestrate_serving.words import CONSONANTS, VOWELS

from .shapes import DENSE

LEARNT_TOKENS = 1600  # words of generated prompts, and halves of made-up ones


def ensure_shape_folder(name: str, cache_dir: str = "") -> Path:
    """Make the folder of this shape unless it is in the cache already (see ``models_folder``)."""
    config = deepcopy(DENSE[name])
    recipe = tiny_model.recipe_digest(config.to_json_string(), tiny_model.__file__, __file__)
    target = tiny_model.models_folder(cache_dir) / f"shape-{name}-{recipe[:16]}"
    if not target.exists():
        with tiny_model.published(target) as folder:
            tokenizer = tiny_model.wrap_tokenizer(_tokenizer(config.vocab_size))
            config.bos_token_id = tokenizer.bos_token_id
            config.eos_token_id = tokenizer.eos_token_id
            config.pad_token_id = tokenizer.pad_token_id
            config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    return target


def _tokenizer(vocabulary: int) -> Any:
    """Of exactly ``vocabulary`` tokens."""
    from tokenizers import Tokenizer

    learnt = tiny_model.train_tokenizer(min(LEARNT_TOKENS, vocabulary), _texts())
    whole = json.loads(learnt.to_str())
    tokens = whole["model"]["vocab"]
    tokens |= {f"filler{place}": place for place in range(len(tokens), vocabulary)}
    return Tokenizer.from_str(json.dumps(whole))


def _texts() -> Iterator[str]:
    yield from tiny_model.prompt_texts()
    halves = ["".join(half) for half in product(CONSONANTS, VOWELS)]
    yield from (f" {one}{other}" for one in halves for other in halves)
