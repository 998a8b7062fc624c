"""One row for each precision and batch size, measured under load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

import orchestrate_kit as kit

from .decoder import Decoder, Generation, Shape
from .parameters import Parameters, batches_of, precisions_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured. ``joules`` None: not, and ``why_not`` says why; ``failure``: why nothing
    was.
    """

    precision: str
    batch: int
    seconds: float = 0.0
    input_tokens: int = 0
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


def measure_rows(parameters: Parameters, shape: Shape, device: torch.device) -> Iterator[Row]:
    """A precision's weights are there once; what does not fit into memory is a row that says so."""
    batches = batches_of(parameters)
    for precision in precisions_of(parameters):
        decoder = None  # the one before makes room first
        try:
            decoder = Decoder(shape, device, DTYPES[precision])
        except torch.OutOfMemoryError:
            yield from (_too_large(precision, batch, "weights") for batch in batches)
            continue
        for batch in batches:
            yield _row(decoder, precision, batch, parameters)


def _row(decoder: Decoder, precision: str, batch: int, parameters: Parameters) -> Row:
    try:
        generation = Generation(decoder, batch, parameters.prompt_tokens, parameters.new_tokens)
        _finish(generation.round())
        return _measure(generation, precision, parameters.seconds)
    except torch.OutOfMemoryError:
        return _too_large(precision, batch, "cache")


def _measure(generation: Generation, precision: str, seconds: float) -> Row:
    """Whole rounds, until ``seconds`` are over; the device is done at both ends."""
    batch = generation.batch
    rounds = 0
    with kit.measured_window(str(generation.decoder.device), alone=True) as window:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            _finish(generation.round())
            rounds += 1
            window.count(
                requests=batch,
                input_tokens=batch * generation.prompt_tokens,
                output_tokens=batch * generation.new_tokens,
            )
        took = time.monotonic() - began
    energy = window.energy
    valid = energy is not None and energy.valid
    return Row(
        precision=precision,
        batch=batch,
        seconds=took,
        input_tokens=rounds * batch * generation.prompt_tokens,
        output_tokens=rounds * batch * generation.new_tokens,
        joules=energy.joules if energy is not None and valid else None,
        why_not="; ".join(energy.problems) if energy is not None and not valid else "",
    )


def _finish(tokens: torch.Tensor) -> None:
    """Wait until the device is done: a value is read."""
    tokens[0].item()


def _too_large(precision: str, batch: int, what: str) -> Row:
    return Row(precision=precision, batch=batch, failure=f"{what} did not fit into memory")
