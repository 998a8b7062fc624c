"""Rounds of a fixed batch through the built-in engine: each begins with all prompts and ends with
the last token of the last answer.
"""

from __future__ import annotations

import threading

import torch

from orchestrate_serving.builtin.engine import BatchingEngine, Update
from orchestrate_serving.builtin.model import Model
from orchestrate_serving.builtin.options import EngineOptions
from orchestrate_serving.builtin.slots import Request
from orchestrate_serving.builtin.weights import Weights

ROUND_S = 600.0


class Rounds:
    """``batch`` random prompts, all answered together with ``new_tokens`` each: what a token takes
    of time and energy depends on sizes, not on what the model has learned. Raises
    ``torch.OutOfMemoryError``.
    """

    def __init__(self, weights: Weights, batch: int, prompt_tokens: int, new_tokens: int) -> None:
        self.batch = batch
        self.prompt_tokens = prompt_tokens
        self.new_tokens = new_tokens
        self.device = weights.device
        generator, size = torch.Generator().manual_seed(1), (batch, prompt_tokens)
        prompts = torch.randint(weights.shape.vocabulary, size, generator=generator).tolist()
        self._requests = [Request(tokens=tuple(p), max_tokens=new_tokens) for p in prompts]
        self._numbers = 0
        self._open: set[int] = set()
        self._came = 0
        self._over = threading.Event()
        # No token ends an answer, so all of them have the same length.
        model = Model(name="random", weights=weights, tokenizer=None, ends=())
        options = EngineOptions(slots=batch, context=prompt_tokens + new_tokens)
        self._engine = BatchingEngine(model, options, self._take)

    def start(self) -> None:
        """Record the steps that a GPU replays. Raises ``torch.OutOfMemoryError``."""
        self._engine.start()

    def close(self) -> None:
        """Free the memory of the cache: the engine and this object refer to each other."""
        self._engine.close()
        del self._engine

    def answer(self) -> int:
        """One round, to its end: how many tokens came. Raises ``torch.OutOfMemoryError``;
        ``RuntimeError`` for any other failure of the engine and for a round that does not end.
        """
        self._over.clear()
        self._came = 0
        numbers = range(self._numbers, self._numbers + self.batch)
        self._numbers += self.batch
        self._open = set(numbers)
        for number, request in zip(numbers, self._requests, strict=True):
            self._engine.submit(number, request)
        if not self._engine.failure and not self._over.wait(ROUND_S):
            raise RuntimeError(f"no end of {self.batch} answers within {ROUND_S:g} s")
        failure = self._engine.failure
        if failure:
            no_memory = failure.startswith(torch.OutOfMemoryError.__name__)
            raise torch.OutOfMemoryError(failure) if no_memory else RuntimeError(failure)
        return self._came

    def _take(self, updates: list[Update]) -> None:
        """In the engine's thread: what came for all requests, or nothing when it has failed."""
        for update in updates:
            self._came += len(update.tokens)
            if update.finish:
                self._open.discard(update.number)
        if self._engine.failure or not self._open:
            self._over.set()
