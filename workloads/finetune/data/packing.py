"""Rows: conversations put side by side, and the tensors of a micro-batch.

Why pack: conversations are much shorter than the sequence length, and padding costs as much as
text. How they are kept apart: position ids start again at 0 with each conversation, no attention
mask is passed, and no key-value cache is used. From that, transformers builds a block-diagonal
causal mask for sdpa, eager and flex attention, and boundaries (cu_seqlens) for flash attention.
Flash attention wants one row, so there the rows of a micro-batch are laid end to end.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch

from .conversations import Example

IGNORED = -100  # the label of tokens that are not predicted
OPEN_ROWS = 64  # rows that are still being filled; bounds the search for a place

Row = tuple[Example, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Tensors of one micro-batch, each [rows, tokens]; labels are already shifted by one.

    `predicting` lists the places, of all tokens, where any row predicts a target: logits are only
    computed there, which for a vocabulary of 152,000 saves gigabytes.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    predicting: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device; the host does not wait for what comes from pinned memory."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """The same in memory that a GPU reads by itself."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        return Batch(
            input_ids=change(self.input_ids),
            position_ids=change(self.position_ids),
            labels=change(self.labels),
            predicting=change(self.predicting),
        )


def text_example(prompt: list[int], answer: list[int]) -> Example:
    """An example of one prompt and its answer, both in tokens."""
    marks = bytes(len(prompt)) + b"\x01" * len(answer)
    return Example(tokens=array("i", [*prompt, *answer]), is_target=marks, prompt="", answer="")


def plan_rows(
    count: int, encode: Callable[[int], Example], wanted: int, *, length: int, pack: bool, seed: int
) -> list[Row]:
    """Return `wanted` rows of at most `length` tokens, over as many shuffled epochs as needed.

    A pure function of its arguments: every rank, and every attempt, computes the same rows.
    Only the conversations that are needed are encoded. Raises `ValueError` if none fits.
    """
    encoded: dict[int, Example] = {}
    rows: list[Row] = []
    for epoch in range(wanted):
        order = list(range(count))
        Random(f"{seed}-epoch-{epoch}").shuffle(order)
        examples = _encoded_once(order, encode, encoded)
        before = len(rows)
        for row in make_rows(examples, length, pack=pack):
            rows.append(row)
            if len(rows) == wanted:
                return rows
        if len(rows) == before:
            raise ValueError(f"no conversation fits into {length} tokens (--sequence-length)")
    return rows


def make_rows(examples: Iterable[Example], length: int, *, pack: bool) -> Iterator[Row]:
    """Yield rows of at most `length` tokens; longer examples are left out."""
    fitting = (example for example in examples if len(example.tokens) <= length)
    return _fill(fitting, length) if pack else ((example,) for example in fitting)


def count_targets(rows: Sequence[Row]) -> int:
    """How many tokens of `rows` are predicted."""
    return sum(example.is_target.count(1, 1) for row in rows for example in row)


def count_tokens(rows: Sequence[Row]) -> int:
    """How many tokens of `rows` are text, not padding."""
    return sum(len(example.tokens) for row in rows for example in row)


def text_figures(rows: Sequence[Row]) -> dict[str, tuple[float, str]]:
    """What decides how long attention and the output layer take: name -> (value, unit)."""
    sizes = [len(example.tokens) for row in rows for example in row]
    total = sum(sizes)
    return {
        "text_tokens": (sum(size * size for size in sizes) / total, "tokens"),
        "target_fraction": (count_targets(rows) / total, "fraction"),
    }


def collate(rows: Sequence[Row], *, pad: int, one_row: bool = False) -> Batch:
    """Lay out rows as tensors, padded to the longest; with `one_row`, end to end instead."""
    lines = [[_columns(example) for example in row] for row in rows]
    if one_row:
        lines = [[columns for line in lines for columns in line]]
    joined = [torch.cat(line, dim=1) for line in lines]
    longest = max(line.shape[1] for line in joined)
    input_ids, position_ids, labels = torch.stack(
        [_padded(line, longest, pad) for line in joined], dim=1
    )
    predicting = (labels != IGNORED).any(dim=0).nonzero().squeeze(1)
    return Batch(
        input_ids=input_ids, position_ids=position_ids, labels=labels, predicting=predicting
    )


def _columns(example: Example) -> torch.Tensor:
    """Token, position and label at each place, [3, tokens]; a conversation's last place predicts
    none.
    """
    tokens = torch.frombuffer(example.tokens, dtype=torch.int32).long()
    targets = torch.frombuffer(bytearray(example.is_target), dtype=torch.uint8).bool()
    labels = torch.full_like(tokens, IGNORED)
    labels[:-1] = torch.where(targets[1:], tokens[1:], IGNORED)
    return torch.stack([tokens, torch.arange(len(tokens)), labels])


def _padded(line: torch.Tensor, longest: int, pad: int) -> torch.Tensor:
    """Padding is one more conversation, which predicts nothing."""
    missing = longest - line.shape[1]
    tail = [torch.full((missing,), pad), torch.arange(missing), torch.full((missing,), IGNORED)]
    return torch.cat([line, torch.stack(tail)], dim=1)


def _encoded_once(
    order: list[int], encode: Callable[[int], Example], encoded: dict[int, Example]
) -> Iterator[Example]:
    for index in order:
        if index not in encoded:
            encoded[index] = encode(index)
        yield encoded[index]


def _fill(examples: Iterator[Example], length: int) -> Iterator[Row]:
    """First fit: put each conversation into the oldest open row with room for it."""
    rows: list[list[Example]] = []
    used: list[int] = []
    for example in examples:
        size = len(example.tokens)
        place = next((i for i, taken in enumerate(used) if taken + size <= length), None)
        if place is None:
            if len(rows) == OPEN_ROWS:
                yield tuple(rows.pop(0))
                used.pop(0)
            rows.append([])
            used.append(0)
            place = len(rows) - 1
        rows[place].append(example)
        used[place] += size
    yield from map(tuple, rows)
