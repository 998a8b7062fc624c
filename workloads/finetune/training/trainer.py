"""The optimiser step over all ranks, and the loop around it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from ..base.settings import Settings
from ..base.world import World
from ..data.packing import Batch, Row, collate, count_targets, count_tokens
from ..data.prefetching import Prefetcher
from ..fused.overlap import Overlap
from ..model.lora import Trainable
from ..model.training_engines import engine_of
from .accounting import Clock
from .batch_size_search import find_batch_size, memory_of

MEANS = ("exp_avg", "exp_avg_sq")  # what AdamW remembers of each value


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What one optimiser step did. `loss` is in nats per target token, before the update."""

    step: int
    loss: float
    learning_rate: float
    tokens: int
    seconds: float
    data_s: float = 0.0  # of the seconds: waiting for rows
    communication_s: float = 0.0  # and for gradients of other ranks


class Others(Protocol):
    """Nodes that do the rest of a step, and are not met by collectives."""

    whole: Sequence[Row]  # the step's rows, of which this node has some

    def add(self, buffer: torch.Tensor) -> None:
        """Add their parts of the gradient and the loss to this node's, on all of its ranks."""


class TrainingFailed(RuntimeError):
    """Training cannot continue; the message says at which step and why."""


class Trainer:
    """Data-parallel training of the adapter, equal for any number of ranks.

    Rank r takes the rows r, r + size, ... of each global batch. The loss of a token is divided by
    the number of target tokens of the whole global batch, which every rank knows, so that gradients
    are summed, not averaged: an average of per-rank means would weigh tokens by how the rows fell.
    All gradients are views of one buffer that is summed over the ranks in a single collective, with
    the loss in its last place. DistributedDataParallel would average per-rank means, and overlaps
    communication that an adapter has little of.
    """

    def __init__(self, trainable: Trainable, rows: Sequence[Row]) -> None:
        self.trainable = trainable
        self.settings = trainable.settings
        self.world = trainable.world
        self.rows = rows
        self.rows_per_step = self.settings.rows_per_step(self.world.total)
        idle = self.world.total - self.rows_per_step
        if idle > 0:
            self.world.log(
                f"warning: {self.rows_per_step} rows in a step leave {idle} of {self.world.total} "
                f"ranks without work; --global-batch {self.world.total} would give one to each"
            )
        self.parameters = trainable.parameters
        self.buffer = _attach_gradients(self.parameters)
        self.engine = engine_of(trainable)
        self.micro_batch = self._micro_batch(self.settings.micro_batch)
        self.engine.fit(self.micro_batch)
        self.changing = threading.Lock()  # held while values and history are not those of one step
        self.prefetcher = Prefetcher(partial(collate_for, trainable), self.world.device)
        self.clock = Clock(self.world.device)
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=self.world.device.type == "cuda",
        )

    def _micro_batch(self, asked: int | str) -> int:
        """Rows in one pass: so many, or with `auto` as many as fit."""
        if isinstance(asked, int):
            return asked
        size = find_batch_size(self, memory_of(self.world.device))
        self.world.log(f"micro-batch: {size.rows} rows ({size.reason})")
        return size.rows

    def rows_of(self, step: int) -> Sequence[Row]:
        """The global batch of a step."""
        return self.rows[(step - 1) * self.rows_per_step : step * self.rows_per_step]

    def step(
        self,
        step: int,
        batch_rows: Sequence[Row] | None = None,
        note: Callable[[StepRecord], None] | None = None,
        others: Others | None = None,
        stride: float = 1.0,
    ) -> StepRecord:
        """Do optimiser step `step`, counted from 1, with the step's rows or these of them; what is
        left of them may be done by `others`. The learning rate is `stride` times that of the step.
        `note` receives its record. Raises `TrainingFailed` if the loss is not finite.
        """
        started = time.monotonic()
        following: Sequence[Row] = ()
        if batch_rows is None:
            batch_rows, following = self.rows_of(step), self.rows_of(step + 1)
        whole = batch_rows if others is None else others.whole
        learning_rate = learning_rate_at(step, self.settings)
        self._accumulate(step, batch_rows, following, count_targets(whole))
        if others is not None:
            with self.clock.communication():
                others.add(self.buffer)
        loss = float(self.buffer[-1])
        if not math.isfinite(loss):
            raise TrainingFailed(f"the loss is {loss} at step {step}; lower --learning-rate")
        clip(self.buffer[:-1], self.settings.max_grad_norm)
        with self.changing:
            self._update(stride * learning_rate)
            lap = self.clock.lap()
            record = StepRecord(
                step=step,
                loss=loss,
                learning_rate=learning_rate,
                tokens=count_tokens(whole),
                seconds=time.monotonic() - started,
                data_s=lap.data_s,
                communication_s=lap.communication_s,
            )
            if note is not None:
                note(record)
        return record

    def measure_step(self) -> float:
        """What this node's rows of a step take, in seconds, by one micro-batch of each rank, of
        which nothing is kept. The second time counts: the first one compiles. All ranks of a node
        call it and get the same.
        """
        world, whole = self.world, self.rows_of(1)
        ranks = range(world.first, world.first + world.size)
        rows = [row for place, row in enumerate(whole) if place % world.total in ranks] or whole[:1]
        some = rows[: self.micro_batch * world.size]
        seconds = 0.0
        for _ in range(2):
            began = time.monotonic()
            self._accumulate(1, some, (), count_targets(whole))
            world.synchronize()
            seconds = time.monotonic() - began
        self.clock.lap()
        return world.max(seconds) * len(rows) / len(some)

    def state(self) -> dict[str, Any]:
        """Adapter and optimiser; everything else follows from the settings and the step. Not a
        copy: the next step changes it.
        """
        return {
            "adapter": [parameter.detach() for parameter in self.parameters],
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        with torch.no_grad():
            for parameter, saved in zip(self.parameters, state["adapter"], strict=True):
                parameter.copy_(saved)
        self.engine.refresh()
        self.optimiser.load_state_dict(state["optimiser"])

    def flat_state(self) -> torch.Tensor:
        """The adapter's values and AdamW's two means of each, in one new vector."""
        remembered = self.optimiser.state
        parts = [flat(self.parameters)]
        for name in MEANS:
            zeros = (torch.zeros_like(parameter) for parameter in self.parameters)
            means = (
                remembered[parameter][name] if parameter in remembered else zero
                for parameter, zero in zip(self.parameters, zeros, strict=True)
            )
            parts.append(flat(means))
        return torch.cat(parts)

    def adopt_state(self, vector: torch.Tensor, step: int) -> None:
        """Continue after `step` from what another rank's `flat_state` returned then."""
        values, *means = vector.split(len(vector) // (1 + len(MEANS)))
        self.adopt(values)
        remembered: list[dict[str, Any]] = [
            {"step": torch.tensor(float(step))} for _ in self.parameters
        ]
        for name, mean in zip(MEANS, means, strict=True):
            for state, part in zip(remembered, views(mean, self.parameters), strict=True):
                state[name] = part.clone()
        known = self.optimiser.state_dict()
        known["state"] = dict(enumerate(remembered)) if step else {}
        self.optimiser.load_state_dict(known)

    def _update(self, learning_rate: float) -> None:
        """Returns when the device is done with it."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        self.optimiser.step()
        self.engine.refresh()
        self.world.synchronize()

    def adopt(self, vector: torch.Tensor) -> None:
        """Take the adapter's values from `vector`: all of them, in the parameters' order."""
        with torch.no_grad():
            for parameter, values in zip(
                self.parameters, views(vector, self.parameters), strict=True
            ):
                parameter.copy_(values)
        self.engine.refresh()

    def _accumulate(
        self, step: int, batch_rows: Sequence[Row], following: Sequence[Row], targets: int
    ) -> None:
        """Put the gradient and the loss of all ranks into the buffer; `following` are the rows of
        the next step, as far as they are known, `targets` the tokens that the loss is a mean over.

        A rank may do its part in micro-batches of any size, since gradients are sums: one that runs
        out of memory can begin again with smaller ones, and no other rank need know, unless parts
        of its gradient were sent already, or the ranks have to make the same passes.
        """
        while True:
            overlap = self.engine.overlap(self.buffer)
            try:
                self._add_own(step, batch_rows, following, targets, overlap)
                break
            except torch.OutOfMemoryError:
                bound = self.engine.in_step or (overlap is not None and overlap.begun)
                if self.settings.oom != "retry" or self.micro_batch == 1 or bound:
                    raise
            # Outside the handler, which keeps the tensors of the failed pass alive.
            self._shrink()
        with self.clock.communication():
            if overlap is None:
                self.world.sum(self.buffer)
            else:
                overlap.wait()

    def _shrink(self) -> None:
        """Half a micro-batch from now on."""
        was, rows = self.micro_batch, (self.micro_batch + 1) // 2
        print(
            f"rank {self.world.number}: out of memory with a micro-batch of {was}; "
            f"continuing with {rows}",
            flush=True,
        )
        self.micro_batch = rows
        self.engine.fit(rows)
        if self.world.device.type == "cuda":
            torch.cuda.empty_cache()

    def _add_own(
        self,
        step: int,
        batch_rows: Sequence[Row],
        following: Sequence[Row],
        targets: int,
        overlap: Overlap | None,
    ) -> None:
        """This rank's part of the gradient and the loss."""
        self.buffer.zero_()
        if not self.trainable.model.training:  # it goes over thousands of modules
            self.trainable.model.train()
        # Dropout is a function of seed, step and rank, so no generator state has to be kept.
        torch.manual_seed((self.settings.seed * 1_000_003 + step) * 65_537 + self.world.number)
        mine, next_ones = self._shares(batch_rows), self._shares(following)
        batches = self.prefetcher.batches(filled(mine), filled(next_ones))
        for number, rows in enumerate(mine):
            last = overlap if number == len(mine) - 1 else None
            if not rows:
                self.engine.accompany(backward=True, overlap=last)
                continue
            # Later on a GPU is busy with the micro-batch before while this one is waited for.
            with self.clock.data(waited=number == 0 or self.world.device.type != "cuda"):
                batch = next(batches)
            self.buffer[-1] += self.engine.accumulate(batch, 1 / targets, last)

    def batches(self, rows: Sequence[Row]) -> Iterator[Batch]:
        """This rank's share of `rows` in micro-batches, on the host; for their losses alone."""
        for share in self._shares(rows):
            if share:
                yield collate_for(self.trainable, share)
            else:
                self.engine.accompany()

    def _shares(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        """This rank's micro-batches; empty ones follow if all ranks must have as many as the first,
        which has most.
        """
        mine = shares(rows, self.world, self.micro_batch)
        if self.engine.in_step:
            most = math.ceil(len(rows[:: self.world.size]) / self.micro_batch)
            mine += [()] * (most - len(mine))
        return mine


def train(
    trainer: Trainer,
    *,
    done: int,
    before_step: Callable[[int], None],
    note: Callable[[StepRecord], None],
    after_step: Callable[[int], None],
) -> None:
    """Do the steps after `done`. `before_step` may begin to measure, `note` keeps the history,
    `after_step` evaluates and saves.
    """
    for step in range(done + 1, trainer.settings.steps + 1):
        before_step(step)
        trainer.step(step, note=note)
        after_step(step)


def shares(rows: Sequence[Row], world: World, size: int) -> list[Sequence[Row]]:
    """This rank's share of `rows`, in parts of `size`."""
    mine = rows[world.rank :: world.size]
    return [mine[start : start + size] for start in range(0, len(mine), size)]


def filled(parts: Sequence[Sequence[Row]]) -> list[Sequence[Row]]:
    """Without those that only accompany other ranks' passes."""
    return [part for part in parts if part]


def collate_for(trainable: Trainable, rows: Sequence[Row]) -> Batch:
    """One micro-batch, as the engine wants it laid out."""
    pad = trainable.tokenizer.pad_token_id
    return collate(rows, pad=pad, one_row=trainable.settings.one_row)


def learning_rate_at(step: int, settings: Settings) -> float:
    """Linear warm-up to the peak, then half a cosine that ends just above zero."""
    warmup = math.ceil(settings.warmup_ratio * settings.steps)
    if step <= warmup:
        return settings.learning_rate * step / warmup
    part = (step - warmup) / (settings.steps - warmup + 1)
    return settings.learning_rate * (1 + math.cos(math.pi * part)) / 2


def flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """All values in one new vector."""
    return torch.cat([tensor.detach().float().flatten() for tensor in tensors])


def views(vector: torch.Tensor, parameters: Sequence[torch.nn.Parameter]) -> Iterator[torch.Tensor]:
    """The parts of `vector`, which has all values in the parameters' order, in their shapes."""
    parts = vector.split([parameter.numel() for parameter in parameters])
    return (part.view_as(like) for part, like in zip(parts, parameters, strict=True))


def _attach_gradients(parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """Make every gradient a view of one new buffer that has one more place at its end."""
    total = sum(parameter.numel() for parameter in parameters)
    buffer = torch.zeros(total + 1, dtype=torch.float32, device=parameters[0].device)
    for parameter, gradient in zip(parameters, views(buffer[:-1], parameters), strict=True):
        parameter.grad = gradient
    return buffer


def clip(gradient: torch.Tensor, max_norm: float) -> None:
    """Scale `gradient` down to that norm, in place."""
    norm = torch.linalg.vector_norm(gradient)
    gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))
