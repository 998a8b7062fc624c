"""The tokenizer of the small base model: a byte-level BPE trained on generated text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

TEMPLATE_PATH = Path(__file__).parent / "chat_template.jinja"
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
SPECIAL_ROLES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
PIECES = r"_?\p{L}+|\p{N}\.\p{N}|\p{N}{1,2}|[^\p{L}\p{N}]+?(?=_?\p{L}|\p{N}|$)"


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> Any:
    """Return a tokenizer in which words, 0 to 99 and 0.0 to 9.9 are single tokens.

    Spaces belong to no word, so a word is the same token in a sentence and in JSON.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **SPECIAL_ROLES, clean_up_tokenization_spaces=False
    )
    fast.chat_template = TEMPLATE_PATH.read_text(encoding="utf-8")
    return fast
