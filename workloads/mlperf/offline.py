"""A worker's side of every scenario: groups of prompts come, and are answered together.

Whether all were there from the start (Offline) or LoadGen asks for them by and by is the
coordinator's business.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import orchestrate_kit as kit

from .engines import Completion, Engine, Refusal
from .parameters import Parameters
from .prompts import Prompt, generate_prompt, parse_prompt
from .scoring import scores_of

# Enough to load kernels and to fill caches; the second answer to it must be the first again.
WARMUP_PROMPTS = 2
PACE_TRIALS = 3


class Unrepeatable(RuntimeError):
    """The same prompts got other answers on the same machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """Tokens and seconds of both halves of the work, so far."""

    prompt_tokens: int = 0
    prefill_s: float = 0.0
    decoded_tokens: int = 0  # without the first of each answer, which prefill makes
    decode_s: float = 0.0

    def add(self, completions: Sequence[Completion]) -> Phases:
        """With those of a batch: prefill ends with its first token, decode with its last one."""
        prefill_s = max(completion.first_token_s for completion in completions)
        last_s = max(completion.last_token_s for completion in completions)
        return Phases(
            prompt_tokens=self.prompt_tokens + sum(c.prompt_tokens for c in completions),
            prefill_s=self.prefill_s + prefill_s,
            decoded_tokens=self.decoded_tokens + sum(len(c.tokens) - 1 for c in completions),
            decode_s=self.decode_s + last_s - prefill_s,
        )

    def rates(self) -> dict[str, float]:
        """Tokens per second of each half that took any time."""
        halves = {
            "prefill_tokens_per_s": (self.prompt_tokens, self.prefill_s),
            "decode_tokens_per_s": (self.decoded_tokens, self.decode_s),
        }
        return {name: tokens / s for name, (tokens, s) in halves.items() if tokens and s > 0}


def answer_prompts(engine: Engine, parameters: Parameters, per_s: float = 0.0) -> Phases:
    """Answer this worker's share of the prompts, group by group. ``per_s``: what it reaches."""
    phases = Phases()
    shares = kit.groups(
        parameters.samples, parameters.batch, parameters.dataset, engine.fingerprint, per_s
    )
    for group in shares:
        completions = answer_group(engine, group, parameters)
        if completions:
            phases = phases.add(completions)
    return phases


def answer_group(
    engine: Engine, group: Sequence[kit.Sample], parameters: Parameters
) -> list[Completion]:
    """Answer the samples of a group together; a sample that makes no sense fails alone.

    Which samples make sense depends on them alone, so whoever answers a group has the same batch.
    """
    asked: list[tuple[kit.Sample, Prompt]] = []
    for sample in group:
        try:
            asked.append((sample, _prompt(sample, parameters)))
        except ValueError as error:
            kit.fail(sample, str(error))

    def begun(place: int) -> None:
        kit.first_token(asked[place][0])

    prompts = [prompt for _, prompt in asked]
    measured = begun if parameters.under_load else None
    answers = engine.generate(prompts, measured) if asked else []
    for (sample, prompt), answer in zip(asked, answers, strict=True):
        _tell(sample, prompt, answer, parameters)
    return [answer for answer in answers if isinstance(answer, Completion)]


def warm_up(engine: Engine, parameters: Parameters) -> None:
    """Answer a few prompts twice. Raises `Unrepeatable` when the answers differ."""
    prompts = [_generated(index, parameters) for index in range(WARMUP_PROMPTS)]
    first, second = (list(map(_content, engine.generate(prompts))) for _ in range(2))
    if first != second:
        raise Unrepeatable(
            f"{socket.gethostname()} answered the same {len(prompts)} prompts differently the "
            f"second time ({first!r:.200}, then {second!r:.200}); its results could not be trusted"
        )


def measure_pace(engine: Engine, parameters: Parameters) -> float:
    """Prompts per second of groups as LoadGen's scenario makes them, of the median of some."""
    size = parameters.batch if parameters.scenario == "offline" else 1
    took: list[float] = []
    for trial in range(PACE_TRIALS):
        first = WARMUP_PROMPTS + trial * size
        prompts = [_generated(index, parameters) for index in range(first, first + size)]
        began = time.monotonic()
        engine.generate(prompts)
        took.append(time.monotonic() - began)
    return size / statistics.median(took)


def _prompt(sample: kit.Sample, parameters: Parameters) -> Prompt:
    if parameters.dataset:
        return parse_prompt(sample.data)
    return _generated(sample.of, parameters)


def _generated(index: int, parameters: Parameters) -> Prompt:
    return generate_prompt(index, seed=parameters.seed, words=parameters.prompt_words)


def _tell(
    sample: kit.Sample, prompt: Prompt, answer: Completion | Refusal, parameters: Parameters
) -> None:
    if isinstance(answer, Refusal):
        kit.fail(sample, answer.reason)
        return
    output = {
        "text": answer.text,
        "tokens": list(answer.tokens),
        "finish_reason": answer.finish_reason,
        **({"sample": sample.of} if parameters.under_load else {}),
        **({"score": scores_of(answer.text, prompt.expected)} if prompt.expected else {}),
    }
    kit.complete(
        sample,
        output,
        answer.last_token_s,
        prompt_tokens=answer.prompt_tokens,
        generated_tokens=len(answer.tokens),
    )


def _content(answer: Completion | Refusal) -> Completion | Refusal:
    """The answer without its times."""
    if isinstance(answer, Refusal):
        return answer
    return replace(answer, first_token_s=0.0, last_token_s=0.0)
