"""Rows of token ids for `scripts/bench finetune`, the same on all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

WORDS = 64  # different tokens, so that there is something to learn in a few steps
TEXT_VOCABULARY = 16_384
CHARACTERS = 6  # a token of text has fewer


def drawn(count: int, length: int) -> Iterator[list[int]]:
    """`count` rows of `length` tokens, drawn at random from a few."""
    import torch

    generator = torch.Generator().manual_seed(7)
    for _ in range(count):
        yield torch.randint(WORDS, (length,), generator=generator).tolist()


def written(folder: Path, count: int, length: int, vocabulary: int) -> Iterator[list[int]]:
    """`count` rows of `length` tokens: the .py files under `folder` after one another in the order
    of their names, by a tokenizer that is trained on them. Raises `SystemExit` if that is too
    little text.
    """
    from tokenizers import ByteLevelBPETokenizer

    texts = [path.read_text(errors="replace") for path in sorted(folder.rglob("*.py"))]
    whole = "".join(texts)[: count * length * CHARACTERS]
    tokenizer = ByteLevelBPETokenizer()
    size = min(TEXT_VOCABULARY, vocabulary)
    tokenizer.train_from_iterator(whole.splitlines(keepends=True), size, show_progress=False)
    ids = tokenizer.encode(whole).ids
    if len(ids) < count * length:
        raise SystemExit(f"{folder} has {len(ids)} tokens, not {count * length}")
    for row in range(count):
        yield ids[row * length : (row + 1) * length]
