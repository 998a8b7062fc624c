"""One row for each precision and batch size, measured under load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch

import orchestrate_kit as kit
from orchestrate_serving.builtin.weights import Weights, random_weights

from .parameters import Parameters, batches_of, precisions_of
from .rounds import Rounds

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured. ``joules`` None: not, and ``why_not`` says why; ``failure``: why nothing
    was.
    """

    precision: str
    batch: int
    seconds: float = 0.0
    output_tokens: int = 0
    joules: float | None = None
    why_not: str = ""
    failure: str = ""

    @property
    def output_tokens_per_s(self) -> float | None:
        return self.output_tokens / self.seconds if self.seconds else None

    @property
    def watts(self) -> float | None:
        return self.joules / self.seconds if self.joules is not None and self.seconds else None

    @property
    def tokens_per_joule(self) -> float | None:
        """Output tokens by all joules."""
        return self.output_tokens / self.joules if self.joules else None


def measure_rows(parameters: Parameters, config: Any, device: torch.device) -> Iterator[Row]:
    """Rows of the decoder that ``config``, one of transformers, describes. A precision's weights
    are there once; what does not fit into memory is a row that says so.
    """
    batches = batches_of(parameters)
    for precision in precisions_of(parameters):
        weights = None  # the ones before make room first
        try:
            weights = random_weights(config, DTYPES[precision], device, seed=0)
        except torch.OutOfMemoryError:
            yield from (_too_large(precision, batch, "weights") for batch in batches)
            continue
        for batch in batches:
            yield _row(weights, precision, batch, parameters)


def _row(weights: Weights, precision: str, batch: int, parameters: Parameters) -> Row:
    try:
        rounds = Rounds(weights, batch, parameters.prompt_tokens, parameters.new_tokens)
        with closing(rounds):
            rounds.start()
            rounds.answer()
            return _measure(rounds, precision, parameters.seconds)
    except torch.OutOfMemoryError:
        return _too_large(precision, batch, "cache and activations")


def _measure(rounds: Rounds, precision: str, seconds: float) -> Row:
    """Whole rounds, until ``seconds`` are over; the device is done at both ends."""
    tokens = 0
    with kit.measured_window(str(rounds.device), alone=True) as window:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            came = rounds.answer()
            tokens += came
            window.count(
                requests=rounds.batch,
                input_tokens=rounds.batch * rounds.prompt_tokens,
                output_tokens=came,
            )
        took = time.monotonic() - began
    energy = window.energy
    valid = energy is not None and energy.valid
    return Row(
        precision=precision,
        batch=rounds.batch,
        seconds=took,
        output_tokens=tokens,
        joules=energy.joules if energy is not None and valid else None,
        why_not="; ".join(energy.problems) if energy is not None and not valid else "",
    )


def _too_large(precision: str, batch: int, what: str) -> Row:
    return Row(precision=precision, batch=batch, failure=f"{what} did not fit into memory")
