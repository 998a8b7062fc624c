"""Prompts through the built-in engine of orchestrate_serving: one group after the other, each from
an idle engine, so that its steps are the same wherever it is answered.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

# Before CUDA starts: cuBLAS repeats itself only with workspaces of a fixed size.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

from orchestrate_models.devices import choose_device
from orchestrate_serving.builtin.engine import MOST_CONTEXT, Update
from orchestrate_serving.builtin.generate_engine import make_engine
from orchestrate_serving.builtin.model import (
    HubModel,
    Model,
    UnusableText,
    encode_chat,
    encode_text,
    load_any_model,
    locate_model,
)
from orchestrate_serving.builtin.options import EngineOptions
from orchestrate_serving.builtin.slots import STOP, Request, TooLong
from orchestrate_serving.settings import known_shape

from .engines import Completion, Refusal
from .parameters import Parameters
from .prompts import Prompt

EDGE = 256  # values at either end of a tensor that go into a fingerprint
SILENCE_S = 600.0  # without a token of a group that is being answered


@dataclass(slots=True)
class _Answer:
    """What came of one prompt, and when, in seconds since its group was handed over."""

    prompt_tokens: int
    tokens: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    finish: str = ""


class ServingEngine:
    """Answers a group at a time: prompts that fit into a step together, then one token of each a
    step.
    """

    def __init__(self, parameters: Parameters, local_rank: int) -> None:
        self.device = choose_device(parameters.device, local_rank)
        # Sums are split by the number of threads: it must not depend on how busy a node is.
        torch.set_num_threads(parameters.threads)
        self.model = _load(parameters, self.device)
        self._limit = parameters.max_new_tokens
        self._least = self._limit if parameters.ignore_eos else 0
        self._updates: queue.SimpleQueue[tuple[float, list[Update]]] = queue.SimpleQueue()
        self._numbers = count()
        options = EngineOptions(slots=parameters.batch, context=_context(parameters))
        self.engine = make_engine(self.model, options, self._take)
        self.engine.start()
        decisive = f"{parameters.dtype} {parameters.ignore_eos} {self._limit} {parameters.batch}"
        self._fingerprint = _fingerprint(self.model, decisive)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def close(self) -> None:
        """End the engine's thread."""
        self.engine.close()

    def generate(
        self, prompts: Sequence[Prompt], begun: Callable[[int], None] | None = None
    ) -> list[Completion | Refusal]:
        """Answer what can be answered as one group. Raises ``RuntimeError`` if the engine fails."""
        asked = [self._request(prompt) for prompt in prompts]
        places = {
            next(self._numbers): at
            for at, request in enumerate(asked)
            if isinstance(request, Request)
        }
        answers = dict(self._answer(places, asked, begun))
        return [
            item if isinstance(item, Refusal) else self._complete(answers[at])
            for at, item in enumerate(asked)
        ]

    def _request(self, prompt: Prompt) -> Request | Refusal:
        tokenizer = self.model.tokenizer
        try:
            if prompt.messages:
                tokens = encode_chat(tokenizer, prompt.messages)
            else:
                tokens = encode_text(tokenizer, prompt.text)
            request = Request(tokens=tokens, max_tokens=self._limit, min_tokens=self._least)
            request.check_length(self.engine.context)
        except (UnusableText, TooLong) as error:
            return Refusal(reason=str(error))
        return request

    def _answer(
        self,
        places: dict[int, int],
        asked: Sequence[Request | Refusal],
        begun: Callable[[int], None] | None,
    ) -> Iterator[tuple[int, _Answer]]:
        """Each answer with its place, once all are whole."""
        requests = [(n, r) for n, at in places.items() if isinstance(r := asked[at], Request)]
        answers = {number: _Answer(len(request.tokens)) for number, request in requests}
        began = time.perf_counter()
        self.engine.submit_all(requests)
        left = set(answers)
        while left:
            at_s, updates = self._next(began)
            for update in updates:
                answer = answers[update.number]
                if begun is not None and not answer.tokens:
                    begun(places[update.number])
                answer.tokens += update.tokens
                answer.times_s += [at_s] * len(update.tokens)
                answer.finish = update.finish
                left -= {update.number} if update.finish else set()
        yield from ((places[number], answer) for number, answer in answers.items())

    def _next(self, began: float) -> tuple[float, list[Update]]:
        """Raises ``RuntimeError`` when the engine has failed, or says nothing for too long."""
        try:
            at, updates = self._updates.get(timeout=SILENCE_S)
        except queue.Empty:
            raise RuntimeError(f"the engine made no token for {SILENCE_S:g} s") from None
        if self.engine.failure:
            no_memory = self.engine.failure.startswith(torch.OutOfMemoryError.__name__)
            raise (torch.OutOfMemoryError if no_memory else RuntimeError)(self.engine.failure)
        return at - began, updates

    def _take(self, updates: list[Update]) -> None:
        """In the engine's thread."""
        self._updates.put((time.perf_counter(), updates))

    def _complete(self, answer: _Answer) -> Completion:
        text = answer.tokens[:-1] if answer.finish == STOP else answer.tokens
        return Completion(
            text=self.model.tokenizer.decode(text, skip_special_tokens=True),
            tokens=tuple(answer.tokens),
            finish_reason=answer.finish,
            prompt_tokens=answer.prompt_tokens,
            first_token_s=answer.times_s[0],
            last_token_s=answer.times_s[-1],
        )


def _load(parameters: Parameters, device: torch.device) -> Model | HubModel:
    source, shape = parameters.model, known_shape(parameters.shape)
    if not source and not shape:
        source = locate_model("", parameters.seed, parameters.cache_dir)
    model = load_any_model(
        source,
        dtype=parameters.dtype,
        device=str(device),
        seed=parameters.seed,
        shape=shape,
        cache_dir=parameters.cache_dir,
    )
    if isinstance(model, HubModel):
        print(f"{model.why}: answered by transformers' generate, which is slower", flush=True)
    return model


def _context(parameters: Parameters) -> int:
    return parameters.context or MOST_CONTEXT + parameters.max_new_tokens


def _fingerprint(model: Model | HubModel, decisive: str) -> str:
    """Digest of both ends of every weight, cheap also for billions, of the vocabulary, and of
    what else decides answers.
    """
    digest = hashlib.sha256(f"{decisive} {model.ends}".encode())
    digest.update(json.dumps(model.tokenizer.get_vocab(), sort_keys=True).encode())
    digest.update(str(model.tokenizer.chat_template).encode())
    for name, weight in _named_weights(model):
        flat = weight.detach().flatten()
        ends = torch.cat([flat[:EDGE], flat[-EDGE:]]).float().cpu()
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(ends.numpy().tobytes())
    return digest.hexdigest()


def _named_weights(model: Model | HubModel) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(model, HubModel):
        yield from model.network.named_parameters()
        return
    weights = model.weights
    yield from (("embedding", weights.embedding), ("norm", weights.norm), ("head", weights.head))
    for place, layer in enumerate(weights.layers):
        for name in layer.__dataclass_fields__:
            if (weight := getattr(layer, name)) is not None:
                yield f"{place} {name}", weight
