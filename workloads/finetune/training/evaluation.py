"""Scores on the held-out conversations, each computed by all ranks together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..data.conversations import Example
from ..data.function_calls import calls_match, parse_calls
from ..data.packing import Row, count_targets
from ..model.lora import Trainable
from .trainer import Trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A held-out prompt, the answer that the model gave, and whether it makes the same calls."""

    prompt: str
    expected: str
    answer: str
    match: bool


def mean_loss(trainer: Trainer, rows: Sequence[Row]) -> float:
    """Loss in nats per target token."""
    trainable = trainer.trainable
    trainable.model.eval()
    total = torch.zeros(1, device=trainable.world.device)
    with torch.no_grad():
        for batch in trainer.batches(rows):
            total += trainer.engine.loss(batch)
    return float(trainable.world.sum(total)) / count_targets(rows)


def answer_prompts(trainable: Trainable, examples: Sequence[Example]) -> list[Sample]:
    """Continue every prompt that calls for a function, greedily; the same list on every rank."""
    world = trainable.world
    calling = [example for example in examples if parse_calls(example.answer)]
    mine = calling[world.rank :: world.size]
    size = trainable.settings.generate_batch
    answers: list[str] = []
    # Ranks that hold the weights together generate together: one without prompts takes others'.
    together = trainable.group is not None
    most = len(calling[:: world.size]) if together else len(mine)
    for start in range(0, most, size):
        own = mine[start : start + size] or calling[:1]
        answers += _generate(trainable, [example.prompt for example in own], together=together)
    samples: dict[int, dict[str, Any]] = {}
    for rank, share in enumerate(world.gather(list(map(_compare, mine, answers[: len(mine)])))):
        for index, sample in enumerate(share):
            samples[rank + index * world.size] = sample
    return [Sample(**samples[index]) for index in sorted(samples)]


def exact_match(samples: Sequence[Sample]) -> float:
    """The fraction of answers that make exactly the expected calls; there is at least one."""
    return sum(sample.match for sample in samples) / len(samples)


def _compare(example: Example, answer: str) -> dict[str, Any]:
    match = calls_match(answer, example.answer)
    sample = Sample(prompt=example.prompt, expected=example.answer, answer=answer, match=match)
    return asdict(sample)


def _generate(trainable: Trainable, prompts: list[str], *, together: bool) -> list[str]:
    tokenizer = trainable.tokenizer
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    width = inputs["input_ids"].shape[1]
    trainable.model.eval()
    with torch.no_grad(), trainable.autocast():
        output = trainable.model.generate(
            input_ids=inputs["input_ids"].to(trainable.world.device),
            attention_mask=inputs["attention_mask"].to(trainable.world.device),
            synced_gpus=together,
        )
    # Special tokens stay in the text, since <tool_call> may be one; padding follows the first end.
    texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=False)
    return [text.partition(tokenizer.eos_token)[0] for text in texts]
