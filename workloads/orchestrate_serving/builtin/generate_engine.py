"""The engine for all other families: transformers' own ``generate``, one batch after the other.

Slower than :mod:`engine`, for a request that comes while a batch is answered waits for its end.
"""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from .engine import CLOSE_S, MOST_CONTEXT, BatchingEngine, Update
from .model import HubModel, Model
from .options import EngineOptions
from .slots import Request, Sequence

CPU_SLOTS, GPU_SLOTS = 8, 32


def make_engine(
    model: Model | HubModel, options: EngineOptions, on_updates: Callable[[list[Update]], None]
) -> BatchingEngine | GenerateEngine:
    """The engine for this model."""
    if isinstance(model, Model):
        return BatchingEngine(model, options, on_updates)
    return GenerateEngine(model, options, on_updates)


class GenerateEngine:
    """Answers what waits, at most ``slots`` requests together, until the last of them has ended.

    ``on_updates`` is called in the engine's thread, once a token, with what came for all requests.
    """

    def __init__(
        self, model: HubModel, options: EngineOptions, on_updates: Callable[[list[Update]], None]
    ) -> None:
        self.context = min(options.context or MOST_CONTEXT, model.context)
        self.slots = options.slots or (GPU_SLOTS if model.device.type == "cuda" else CPU_SLOTS)
        self.failure = ""
        self._model = model
        # Its own defaults would fill in whatever a request leaves open: ends, penalties, sampling.
        model.network.generation_config = GenerationConfig()
        self._on_updates = on_updates
        self._inbox: queue.SimpleQueue[list[Sequence] | None] = queue.SimpleQueue()
        self._waiting: list[Sequence] = []
        self._known: dict[int, Sequence] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Take requests."""
        self._thread.start()

    def submit(self, number: int, request: Request) -> None:
        """Answer a request; ``number`` names it in updates. Raises :class:`TooLong`."""
        self.submit_all([(number, request)])

    def submit_all(self, requests: Items[tuple[int, Request]]) -> None:
        """Answer all of these together, as far as slots allow. Raises :class:`TooLong`."""
        for _, request in requests:
            request.check_length(self.context)
        sequences = [Sequence(request=request, number=number) for number, request in requests]
        self._known |= {sequence.number: sequence for sequence in sequences}
        self._inbox.put(sequences)

    def cancel(self, number: int) -> None:
        """Nobody waits for this request any more."""
        if (sequence := self._known.get(number)) is not None:
            sequence.finish = sequence.finish or "cancelled"

    def close(self) -> None:
        """End the thread after the batch under way."""
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        try:
            while self._receive():
                batch = [self._waiting.pop(0) for _ in self._waiting[: self.slots]]
                self._answer([sequence for sequence in batch if not sequence.finish])
                for sequence in batch:
                    self._known.pop(sequence.number, None)
        except Exception as error:  # noqa: BLE001 - whatever it is, all who wait must hear of it
            traceback.print_exc()
            self.failure = f"{type(error).__name__}: {error}"
            numbers = list(self._known)
            self._on_updates([Update(number=n, tokens=(), error=self.failure) for n in numbers])

    def _receive(self) -> bool:
        """Take what was asked, waiting only if there is nothing to do; whether to go on."""
        while True:
            try:
                item = self._inbox.get(block=not self._waiting)
            except queue.Empty:
                return True
            if item is None:
                return False
            self._waiting.extend(item)

    @torch.inference_mode()
    def _answer(self, batch: Items[Sequence]) -> None:
        if not batch:
            return
        device = self._model.device
        width = max(len(sequence.request.tokens) for sequence in batch)
        rows = [sequence.request.tokens for sequence in batch]
        ids = [[*[0] * (width - len(row)), *row] for row in rows]
        mask = [[*[0] * (width - len(row)), *[1] * len(row)] for row in rows]
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=max(sequence.request.max_tokens for sequence in batch),
            pad_token_id=0,
        )
        self._model.network.generate(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=settings,
            logits_processor=LogitsProcessorList([_Wishes(batch, self._model.ends, width)]),
            stopping_criteria=StoppingCriteriaList([_Tokens(batch, self._pass_on)]),
        )

    def _pass_on(self, batch: Items[Sequence], tokens: Items[int]) -> None:
        ends = frozenset(self._model.ends)
        updates = [
            Update(number=sequence.number, tokens=(token,), finish=sequence.finish)
            for sequence, token in zip(batch, tokens, strict=True)
            if sequence.take(token, ends)
        ]
        if updates:
            self._on_updates(updates)


class _Wishes(LogitsProcessor):  # type: ignore[misc,unused-ignore]
    """What each request asks of its next token: no end too early, a draw at its temperature (the
    likeliest after Gumbel noise is one).
    """

    def __init__(self, batch: Items[Sequence], ends: Items[int], width: int) -> None:
        self._batch, self._ends, self._width = batch, list(ends), width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        made = input_ids.shape[1] - self._width
        for row, sequence in enumerate(self._batch):
            request = sequence.request
            if made < request.min_tokens:
                scores[row, self._ends] = -torch.inf
            if request.temperature > 0:
                noise = -torch.empty_like(scores[row]).exponential_().log()
                scores[row] = scores[row] / request.temperature + noise
        return scores


class _Tokens(StoppingCriteria):  # type: ignore[misc,unused-ignore]
    """Passes on each token, and says which rows have ended."""

    def __init__(
        self, batch: Items[Sequence], pass_on: Callable[[Items[Sequence], Items[int]], None]
    ) -> None:
        self._batch, self._pass_on = batch, pass_on

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        del scores
        self._pass_on(self._batch, input_ids[:, -1].tolist())
        over = [bool(sequence.finish) for sequence in self._batch]
        return torch.tensor(over, device=input_ids.device)
