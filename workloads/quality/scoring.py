"""Log-likelihoods of texts and continuations under a causal language model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .dataset import Item, Question, Text

# Bytes as tokens, for models without a tokenizer: any vocabulary of at least this many has them.
BYTES = 256
Encode = Callable[[str], list[int]]


@dataclass(frozen=True, kw_only=True)
class Score:
    """Of one line: nats over tokens of a text, or whether the answer was the likeliest choice.

    ``cut``: tokens that did not fit, and were left out.
    """

    line: int
    nats: float = 0.0
    tokens: int = 0
    right: bool | None = None
    cut: int = 0


def bytes_as_tokens(text: str) -> list[int]:
    return list(text.encode())


class Scorer:
    """``longest``: tokens of one pass; texts end there."""

    def __init__(self, model: Any, encode: Encode, device: torch.device, longest: int) -> None:
        self._model = model
        self._encode = encode
        self._device = device
        self._longest = longest

    def score(self, item: Item) -> Score:
        return self._score_text(item) if isinstance(item, Text) else self._score_question(item)

    def _score_text(self, item: Text) -> Score:
        tokens = self._encode(item.text)
        kept = tokens[: self._longest]
        nats = self._nats(kept, 1)
        return Score(
            line=item.line, nats=nats, tokens=max(0, len(kept) - 1), cut=len(tokens) - len(kept)
        )

    def _score_question(self, item: Question) -> Score:
        """By nats per byte of the choice, so that long ones are not at a disadvantage. Where all is
        too long for one pass the question's beginning is left out.
        """
        question = self._encode(item.question)
        rates, cut = [], 0
        for choice in item.choices:
            answer = self._encode(choice)[-self._longest + 1 :]
            kept = question[-max(1, self._longest - len(answer)) :]
            cut = max(cut, len(question) - len(kept))
            nats = self._nats([*kept, *answer], len(kept))
            rates.append(nats / len(choice.encode()))
        return Score(line=item.line, right=rates.index(min(rates)) == item.answer, cut=cut)

    @torch.inference_mode()
    def _nats(self, tokens: Sequence[int], first: int) -> float:
        """Of the tokens from place ``first`` on, each given all before it."""
        if len(tokens) <= first:
            return 0.0
        inputs = torch.tensor([tokens], device=self._device)
        logits = self._model(input_ids=inputs, use_cache=False).logits[0, first - 1 : -1]
        targets = inputs[0, first:]
        loss = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        return float(loss.double().sum().item())
