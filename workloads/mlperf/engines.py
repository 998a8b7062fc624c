"""What answers prompts: the one thing that scenarios know about models, servers and devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .prompts import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """An answer, and what it took. Times are seconds since the prompts were handed over."""

    text: str
    tokens: tuple[int, ...]  # as generated, with the end-of-text token if there is one
    finish_reason: str  # stop: the model ended the answer; length: it reached the limit
    prompt_tokens: int
    first_token_s: float
    last_token_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A prompt that cannot be answered, whoever tries."""

    reason: str


class Engine(Protocol):
    """Answers prompts, greedily: equal prompts in equal company get equal answers."""

    @property
    def fingerprint(self) -> str:
        """Identity of weights, tokenizer and what else decides the answers."""

    def generate(
        self, prompts: Sequence[Prompt], begun: Callable[[int], None] | None = None
    ) -> list[Completion | Refusal]:
        """One answer for each prompt, in their order; an engine may work on all of them at once.

        ``begun`` is called with a prompt's place when the first token of its answer is there.
        """
