"""What `scripts/gpu_check model` measures, for the cost model's coefficients. Pure.

Chosen before anything was measured, as was the rule that keeps every third of them from the fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

# A step of the fused fine-tune; the built-in engine; transformers' own forward pass (`large`).
FINETUNE, INFERENCE, EAGER = "finetune", "inference", "eager"
HELD_OUT_EVERY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One configuration. `batch`: rows of a micro-batch, or requests at once; `sequence`: tokens of
    a row, or of a prompt; `answer`: tokens that each request gets. `text`: mean tokens of the texts
    that are packed into a row, 0 = a row is one; `targets`: the share of tokens that are predicted.
    """

    kind: str
    shape: str
    batch: int
    sequence: int
    gpus: int = 1
    accumulation: int = 1
    answer: int = 0
    text: int = 0
    targets: float = 1.0

    @property
    def held_out(self) -> bool:
        """Never used for fitting: the third, sixth, ... of the list."""
        return POINTS.index(self) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1

    def record(self) -> dict[str, Any]:
        """As the measured points' file has it."""
        return asdict(self) | {"held_out": self.held_out}


def _finetune(shape: str, batch: int, sequence: int, gpus: int = 1, accumulation: int = 1) -> Point:
    return Point(
        kind=FINETUNE,
        shape=shape,
        batch=batch,
        sequence=sequence,
        gpus=gpus,
        accumulation=accumulation,
    )


def _inference(shape: str, batch: int, prompt: int, answer: int) -> Point:
    return Point(kind=INFERENCE, shape=shape, batch=batch, sequence=prompt, answer=answer)


def _packed(shape: str, batch: int, sequence: int, text: int) -> Point:
    """As conversations are: a third of their tokens is the answers."""
    return replace(_finetune(shape, batch, sequence), text=text, targets=0.33)


def _eager(shape: str, batch: int, prompt: int, answer: int = 32) -> Point:
    return Point(kind=EAGER, shape=shape, batch=batch, sequence=prompt, answer=answer)


# New points come last: the rule counts places, and those that were held out once stay so.
POINTS = (
    _finetune("qwen2-7b", 2, 4096),
    _finetune("qwen2-7b", 1, 2048),
    _finetune("qwen2-7b", 1, 4096),
    _finetune("qwen2-7b", 4, 1024),
    _finetune("qwen2-7b", 1, 8192),
    _finetune("qwen2-7b", 2, 2048),
    _finetune("qwen2-7b", 4, 4096),
    _finetune("qwen2-7b", 1, 4096, accumulation=3),
    _finetune("qwen2-7b", 8, 1024),
    _finetune("qwen2-1.5b", 1, 2048),
    _finetune("qwen2-1.5b", 4, 4096),
    _finetune("qwen2-1.5b", 2, 4096),
    _finetune("qwen2-1.5b", 8, 1024),
    _finetune("qwen2-0.5b", 8, 2048),
    _finetune("qwen2-1.5b", 2, 8192),
    _finetune("qwen2-0.5b", 2, 4096),
    _inference("qwen2-7b", 1, 128, 128),
    _inference("qwen2-7b", 8, 512, 96),
    _inference("qwen2-7b", 32, 512, 96),
    _inference("qwen2-7b", 128, 256, 96),
    _inference("qwen2-7b", 64, 512, 96),
    _inference("qwen2-7b", 16, 2048, 96),
    _inference("qwen2-7b", 256, 128, 96),
    _inference("qwen2-7b", 1, 1024, 128),
    _inference("qwen2-1.5b", 1, 128, 128),
    _inference("qwen2-1.5b", 128, 512, 96),
    _inference("qwen2-1.5b", 32, 256, 96),
    _inference("qwen2-1.5b", 8, 1024, 96),
    _finetune("qwen2-7b", 2, 4096, gpus=4),
    _finetune("qwen2-7b", 1, 4096, gpus=4),
    _finetune("qwen2-7b", 1, 2048, gpus=4),
    _finetune("qwen2-1.5b", 2, 4096, gpus=4),
    _finetune("qwen2-1.5b", 4, 2048, gpus=4),
    _finetune("qwen2-7b", 1, 4096, gpus=2),
    _finetune("qwen2-7b", 2, 4096, gpus=2),
    _finetune("qwen2-7b", 1, 2048, gpus=2),
    _finetune("qwen2-1.5b", 4, 2048, gpus=2),
    _finetune("qwen2-1.5b", 1, 4096, gpus=2),
    _finetune("qwen2-1.5b", 2, 4096, gpus=2),
    _finetune("qwen2-7b", 3, 2048),
    _finetune("qwen2-7b", 2, 8192),
    _finetune("qwen2-1.5b", 16, 1024),
    _finetune("qwen2-0.5b", 4, 4096),
    _finetune("qwen2-1.5b", 1, 8192),
    _inference("qwen2-7b", 4, 256, 96),
    _inference("qwen2-7b", 64, 128, 128),
    _inference("qwen2-1.5b", 64, 1024, 96),
    _inference("qwen2-7b", 256, 256, 96),
    _inference("qwen2-7b", 2, 512, 96),
    _eager("qwen2-7b", 1, 128),
    _eager("qwen2-7b", 8, 2048),
    _eager("qwen2-7b", 4, 512),
    _eager("qwen2-7b", 32, 512),
    _eager("qwen2-7b", 2, 4096),
    _eager("qwen2-7b", 64, 128),
    _eager("llama-2-13b", 4, 2048),
    _eager("llama-2-13b", 1, 512),
    _eager("llama-2-13b", 16, 512),
    _eager("gpt-40b", 4, 2048, 16),
    _eager("gpt-40b", 1, 512, 16),
    _eager("gpt-40b", 8, 1024, 16),
    _eager("llama-3.1-8b", 8, 1024),
    _eager("llama-3.1-8b", 1, 1024),
    _eager("llama-3.1-8b", 32, 256),
    _packed("qwen2-7b", 2, 4096, 113),
    _packed("qwen2-7b", 4, 2048, 113),
    _packed("qwen2-1.5b", 4, 4096, 512),
    _packed("qwen2-7b", 1, 8192, 1024),
    _packed("qwen2-1.5b", 2, 4096, 113),
    _packed("qwen2-7b", 4, 4096, 256),
)


def by_model(numbers: Iterable[int]) -> dict[tuple[str, str], list[int]]:
    """Points by kind and shape: one model serves all of a pair, and making one takes seconds."""
    groups: dict[tuple[str, str], list[int]] = {}
    for number in numbers:
        groups.setdefault((POINTS[number].kind, POINTS[number].shape), []).append(number)
    return groups
