"""The in-process engine: a causal language model in transformers, on one GPU or on CPU threads."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

# Before CUDA starts: cuBLAS repeats itself only with workspaces of a fixed size.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

import orchestrate_kit as kit
from orchestrate_serving.builtin import tiny_model

from .engines import Completion, Refusal
from .parameters import Parameters
from .prompts import Prompt

WEIGHTS_AND_TEXT = ["*.json", "*.jinja", "*.model", "*.safetensors", "*.txt"]
EDGE = 256  # values at either end of a tensor that go into a fingerprint
# Some chat templates write today's date into the prompt: answers would depend on the day.
DATE = "26 Jul 2024"


class TransformersEngine:
    """Answers a batch at a time: prefill of all prompts together, then one token of each a step."""

    def __init__(self, parameters: Parameters, local_rank: int) -> None:
        self.device = _choose_device(parameters.device, local_rank)
        _repeat_exactly(parameters.threads)
        source = _locate_model(parameters)
        self._tokenizer = _load_tokenizer(source)
        self._model = _load_model(source, parameters).to(self.device).eval()
        self._limit = parameters.max_new_tokens
        self._ends = _ends(self._model, self._tokenizer)
        self._context = self._model.config.get_text_config().max_position_embeddings
        self._configure(ignore_eos=parameters.ignore_eos)
        decisive = f"{parameters.dtype} {parameters.attention} {parameters.ignore_eos}"
        self._fingerprint = _fingerprint(self._model, self._tokenizer, f"{decisive} {self._limit}")

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def generate(
        self, prompts: Sequence[Prompt], begun: Callable[[int], None] | None = None
    ) -> list[Completion | Refusal]:
        """Answer what can be answered as one batch, padded to its longest prompt."""
        encoded = [self._encode(prompt) for prompt in prompts]
        places = [at for at, tokens in enumerate(encoded) if not isinstance(tokens, Refusal)]
        clock = _Clock(self.device, partial(_each, begun, places) if begun else None)
        rows = [tokens for tokens in encoded if not isinstance(tokens, Refusal)]
        answered = iter(self._answer(rows, clock) if rows else ())
        return [item if isinstance(item, Refusal) else next(answered) for item in encoded]

    def _configure(self, *, ignore_eos: bool) -> None:
        """Greedy, whatever the model's own defaults say about sampling and repetition."""
        from transformers import GenerationConfig

        pad = self._tokenizer.pad_token_id
        self._model.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=self._limit,
            min_new_tokens=self._limit if ignore_eos else None,
            eos_token_id=self._ends,
            pad_token_id=self._ends[0] if pad is None else pad,
        )

    def _encode(self, prompt: Prompt) -> list[int] | Refusal:
        from jinja2 import TemplateError

        text, whole = prompt.text, False
        if prompt.messages:
            try:
                text, whole = self._render(prompt.messages), True
            except (TemplateError, TypeError, ValueError) as error:
                return Refusal(reason=f"the chat template refuses the messages: {error}")
        tokens: list[int] = self._tokenizer(text, add_special_tokens=not whole)["input_ids"]
        if len(tokens) + self._limit > self._context:
            return Refusal(
                reason=f"{len(tokens)} prompt tokens and {self._limit} new ones are more than "
                f"the model's context of {self._context}"
            )
        return tokens

    def _render(self, messages: Sequence[dict[str, Any]]) -> str:
        text = self._tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True, date_string=DATE
        )
        return str(text)

    def _answer(self, rows: Sequence[list[int]], clock: _Clock) -> list[Completion]:
        width = max(map(len, rows))
        pad = self._model.generation_config.pad_token_id
        ids = [[pad] * (width - len(row)) + row for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=torch.tensor(ids, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device),
                stopping_criteria=StoppingCriteriaList([clock]),
            )
        answers = output[:, width:].tolist()
        return [self._complete(len(r), a, clock) for r, a in zip(rows, answers, strict=True)]

    def _complete(self, prompt_tokens: int, answer: list[int], clock: _Clock) -> Completion:
        """Cut at the first end: what follows is padding while the others went on."""
        end = next((at for at, token in enumerate(answer) if token in self._ends), None)
        tokens = answer if end is None else answer[: end + 1]
        return Completion(
            text=self._tokenizer.decode(answer[:end], skip_special_tokens=True),
            tokens=tuple(tokens),
            finish_reason="length" if end is None else "stop",
            prompt_tokens=prompt_tokens,
            first_token_s=clock.passed[0],
            last_token_s=clock.passed[len(tokens) - 1],
        )


def _each(call: Callable[[int], None], places: Sequence[int]) -> None:
    for place in places:
        call(place)


class _Clock(StoppingCriteria):
    """Notes when each token was there; it is asked after every one, and stops nothing. ``begun`` is
    called after the first.
    """

    def __init__(self, device: torch.device, begun: Callable[[], None] | None) -> None:
        self._device = device
        self._begun = begun
        self._began = time.perf_counter()
        self.passed: list[float] = []

    def __call__(self, input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.passed.append(time.perf_counter() - self._began)
        if self._begun is not None and len(self.passed) == 1:
            self._begun()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _choose_device(device: str, local_rank: int) -> torch.device:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    chosen = torch.device(kit.device_of_rank(device, local_rank, gpus))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen


def _repeat_exactly(threads: int) -> None:
    """Sums are split by the number of threads, so it must not depend on how busy a node is."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def _locate_model(parameters: Parameters) -> str:
    """A folder on this node, or a hub name whose files are here."""
    if not parameters.model:
        return str(tiny_model.ensure_model(parameters.seed, parameters.cache_dir))
    if not Path(parameters.model).is_dir():
        from huggingface_hub import snapshot_download

        return str(snapshot_download(parameters.model, allow_patterns=WEIGHTS_AND_TEXT))
    return parameters.model


def _load_tokenizer(source: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(source)


def _load_model(source: str, parameters: Parameters) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(
        source,
        dtype=torch.bfloat16 if parameters.dtype == "bf16" else torch.float32,
        attn_implementation=parameters.attention,
    )


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: chat models have several."""
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    return list(ends) if isinstance(ends, (list, tuple)) else [ends]


def _fingerprint(model: torch.nn.Module, tokenizer: Any, decisive: str) -> str:
    """Digest of both ends of every weight, cheap also for billions, of the vocabulary, and of
    what else decides answers.
    """
    digest = hashlib.sha256(decisive.encode())
    digest.update(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
    digest.update(str(tokenizer.chat_template).encode())
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        ends = torch.cat([flat[:EDGE], flat[-EDGE:]]).float().cpu()
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(ends.numpy().tobytes())
    return digest.hexdigest()
