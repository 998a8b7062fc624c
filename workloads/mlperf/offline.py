"""The Offline scenario: all prompts are there from the start; what counts is how fast they go."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

import orchestrate_kit as kit

from .engines import Completion, Engine, Refusal
from .parameters import Parameters
from .prompts import Prompt, generate_prompt, parse_prompt

# Enough to load kernels and to fill caches; the second answer to it must be the first again.
WARMUP_PROMPTS = 2


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


def run_offline(engine: Engine, parameters: Parameters) -> Phases:
    """Answer this worker's share of the prompts, group by group."""
    phases = Phases()
    shares = kit.groups(
        parameters.samples, parameters.batch, parameters.dataset, engine.fingerprint
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
    answers = engine.generate([prompt for _, prompt in asked]) if asked else []
    for (sample, _), answer in zip(asked, answers, strict=True):
        _tell(sample, answer)
    return [answer for answer in answers if isinstance(answer, Completion)]


def warm_up(engine: Engine, parameters: Parameters) -> None:
    """Answer a few prompts twice. Raises `Unrepeatable` when the answers differ."""
    prompts = [
        generate_prompt(index, seed=parameters.seed, words=parameters.prompt_words)
        for index in range(WARMUP_PROMPTS)
    ]
    first, second = (list(map(_content, engine.generate(prompts))) for _ in range(2))
    if first != second:
        raise Unrepeatable(
            f"{socket.gethostname()} answered the same {len(prompts)} prompts differently the "
            f"second time ({first!r:.200}, then {second!r:.200}); its results could not be trusted"
        )


def _prompt(sample: kit.Sample, parameters: Parameters) -> Prompt:
    if parameters.dataset:
        return parse_prompt(sample.data)
    return generate_prompt(sample.index, seed=parameters.seed, words=parameters.prompt_words)


def _tell(sample: kit.Sample, answer: Completion | Refusal) -> None:
    if isinstance(answer, Refusal):
        kit.fail(sample, answer.reason)
        return
    output = {
        "text": answer.text,
        "tokens": list(answer.tokens),
        "finish_reason": answer.finish_reason,
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
