"""How many rows make a micro-batch: as many as fit, as long as more make it faster."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from conversations import Example
from fused.memory import MARGIN
from packing import Row, collate, text_example

if TYPE_CHECKING:
    from training import Trainer

# From here on a GPU's matrix products are as fast as they get: 32,768 tokens make the smallest of
# Qwen2-7B's products, 512 columns of keys, 1,024 tiles of 128 x 128 for 132 multiprocessors.
EFFICIENT_TOKENS = 32_768
# A CPU's caches make larger micro-batches slower, not faster.
EFFICIENT_TOKENS_ON_CPU = 2_048


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a micro-batch takes on top of what is always there."""

    fixed: float
    per_row: float


@dataclass(frozen=True, slots=True)
class Size:
    """Rows of a micro-batch, and why."""

    rows: int
    reason: str


def choose_size(footprint: Footprint | None, room: float, rows: int, efficient: int) -> Size:
    """For a rank that has `rows` in a step: the most that fit into `room` bytes, at most
    `efficient`, and spread evenly, so that the last micro-batch of a step is not a small rest.
    """
    fitting, reason = efficient, f"more than {efficient} are not faster"
    if footprint is not None:
        usable = room * (1 - MARGIN) - footprint.fixed
        held = max(1, int(usable // max(footprint.per_row, 1.0)))
        if held < efficient:
            fitting = held
            reason = f"{footprint.per_row / 1e9:.2f} GB a row of {room / 1e9:.1f} GB that are free"
    if rows <= fitting:
        return Size(max(rows, 1), "all that this rank has in a step")
    return Size(math.ceil(rows / math.ceil(rows / fitting)), reason)


def find_size(trainer: Trainer) -> Size:
    """The same on all ranks: what suits the one that has least room."""
    settings, world = trainer.settings, trainer.world
    on_gpu = world.device.type == "cuda"
    rows = math.ceil(settings.rows_per_step(world.total) / world.total)
    tokens = EFFICIENT_TOKENS if on_gpu else EFFICIENT_TOKENS_ON_CPU
    efficient = max(1, tokens // settings.sequence_length)
    footprint, room = _measured(trainer) if on_gpu else (None, 0.0)
    sizes = world.gather(choose_size(footprint, room, rows, efficient))
    smallest: Size = min(sizes, key=lambda size: size.rows)
    return smallest


def _measured(trainer: Trainer) -> tuple[Footprint, float]:
    """From the peaks of one row and of two; the optimiser's moments, which are made later, are not
    free.
    """
    device = trainer.world.device
    peaks = []
    before = torch.cuda.memory_allocated(device)
    for count in (1, 2):
        torch.cuda.reset_peak_memory_stats(device)
        rows = [_full_row(trainer.settings.sequence_length) for _ in range(count)]
        batch = collate(rows, pad=0, one_row=trainer.settings.one_row)
        trainer.engine.accumulate(batch, 1.0)
        peaks.append(torch.cuda.max_memory_allocated(device) - before)
    trainer.buffer.zero_()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    free, _ = torch.cuda.mem_get_info(device)
    moments = 2 * trainer.buffer.numel() * trainer.buffer.element_size()
    return Footprint(2 * peaks[0] - peaks[1], peaks[1] - peaks[0]), free - moments


def _full_row(length: int) -> Row:
    """As long as a row gets, every token a target: the most that one can take."""
    example: Example = text_example([0], [0] * (length - 1))
    return (example,)
