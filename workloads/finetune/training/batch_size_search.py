"""How many rows make a micro-batch: as many as fit, as long as more make it faster."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from ..base.settings import Settings
from ..base.world import World
from ..data.conversations import Example
from ..data.packing import Row, collate, text_example
from ..fused.memory import MARGIN
from ..model.training_engines import Engine

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
class BatchSize:
    """Rows of a micro-batch, and why."""

    rows: int
    reason: str


class RowTooLong(RuntimeError):
    """Not even one row fits; the message says on which rank, and what to do."""


class Memory(Protocol):
    """Of a rank's device."""

    def held(self) -> float:
        """Bytes that this rank's tensors take now."""

    def peak_of(self, work: Callable[[], None]) -> float:
        """The most that they took during `work`."""

    def free(self) -> float:
        """Bytes that nobody uses."""


@dataclass(frozen=True, slots=True)
class CudaMemory:
    """A GPU's, shared with whoever else uses it."""

    device: torch.device

    def held(self) -> float:
        return torch.cuda.memory_allocated(self.device)

    def peak_of(self, work: Callable[[], None]) -> float:
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        return torch.cuda.max_memory_allocated(self.device)

    def free(self) -> float:
        """What the allocator keeps for later is given back first; peaks are counted anew."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        free, _ = torch.cuda.mem_get_info(self.device)
        return free


class TrialTrainer(Protocol):
    """What the search needs of a trainer, to try passes of one row and of two."""

    @property
    def settings(self) -> Settings: ...

    @property
    def world(self) -> World: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def buffer(self) -> torch.Tensor:
        """All gradients."""


def memory_of(device: torch.device) -> Memory | None:
    """None where nothing can be measured: a CPU's memory is shared with all other processes."""
    return CudaMemory(device) if device.type == "cuda" else None


def choose_batch_size(
    footprint: Footprint | None, room: float, rows: int, efficient: int
) -> BatchSize:
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
        return BatchSize(max(rows, 1), "all that this rank has in a step")
    return BatchSize(math.ceil(rows / math.ceil(rows / fitting)), reason)


def find_batch_size(trainer: TrialTrainer, memory: Memory | None) -> BatchSize:
    """The same on all ranks: what suits the one that has least room. Raises `RowTooLong` on all of
    them if one has no room for a single row.
    """
    settings, world = trainer.settings, trainer.world
    rows = math.ceil(settings.rows_per_step(world.total) / world.total)
    tokens = EFFICIENT_TOKENS_ON_CPU if memory is None else EFFICIENT_TOKENS
    efficient = max(1, tokens // settings.sequence_length)
    if memory is None:
        own = choose_batch_size(None, 0.0, rows, efficient)
    else:
        own = _fitting(trainer, memory, rows, efficient)
    sizes: list[BatchSize] = world.gather(own)
    for rank, size in enumerate(sizes):
        if size.rows == 0:
            raise RowTooLong(_too_long(settings, world.first + rank, size.reason))
    return min(sizes, key=lambda size: size.rows)


def _fitting(trainer: TrialTrainer, memory: Memory, rows: int, efficient: int) -> BatchSize:
    """From the peaks of one row and of two; the optimiser's moments, which are made later, are not
    free. No rows if not even one fits.
    """
    trainer.engine.fit(1)
    before = memory.held()
    peaks: list[float] = []
    failure = ""
    for count in (1, 2):
        peak, failure = _peak_of(trainer, memory, count)
        if peak is not None:
            peaks.append(peak - before)
        if _is_failed(trainer, failed=peak is None):
            break
    trainer.buffer.zero_()
    free = memory.free()
    if not peaks:
        return BatchSize(0, failure)
    if len(peaks) == 1:
        return BatchSize(1, "two do not fit into memory")
    moments = 2 * trainer.buffer.numel() * trainer.buffer.element_size()
    footprint = Footprint(2 * peaks[0] - peaks[1], peaks[1] - peaks[0])
    return choose_batch_size(footprint, free - moments, rows, efficient)


def _peak_of(trainer: TrialTrainer, memory: Memory, count: int) -> tuple[float | None, str]:
    """The peak of a pass of so many rows; None, and why, where they do not fit."""
    try:
        return memory.peak_of(partial(_probe, trainer, count)), ""
    except torch.OutOfMemoryError as error:
        return None, str(error)


def _is_failed(trainer: TrialTrainer, *, failed: bool) -> bool:
    """Whether there is no sense in more rows: a pass `failed` here, or, where ranks make the same
    passes, on any of them. They wait for each other no longer than `collective_timeout`.
    """
    if not trainer.engine.in_step:
        return failed
    if failed:
        trainer.engine.finish_pass()
    return trainer.world.any(failed)


def _probe(trainer: TrialTrainer, count: int) -> None:
    """The passes of so many full rows."""
    rows = [_full_row(trainer.settings.sequence_length) for _ in range(count)]
    batch = collate(rows, pad=0, one_row=trainer.settings.one_row)
    trainer.engine.accumulate(batch, 1.0)


def _full_row(length: int) -> Row:
    """As long as a row gets, every token a target: the most that one can take."""
    example: Example = text_example([0], [0] * (length - 1))
    return (example,)


def _too_long(settings: Settings, rank: int, failure: str) -> str:
    """In one line: what does not fit where, what helps, and what the allocator said."""
    remedies = ["lower --sequence-length or --lora-rank"]
    if settings.engine == "fused" and settings.recompute != "layer":
        remedies.append("pass --recompute layer")
    if settings.engine == "plain" and not settings.gradient_checkpointing:
        remedies.append("add --gradient-checkpointing")
    cause = " ".join(failure.split())
    return (
        f"a single row of {settings.sequence_length} tokens does not fit into the memory of rank "
        f"{rank}: {', or '.join(remedies)} ({cause})"
    )
