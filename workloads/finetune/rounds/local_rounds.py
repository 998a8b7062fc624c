"""Training without collectives between nodes: DiLoCo (arXiv 2311.08105), its exchange overlapped.

Every node trains by itself on its share of each step's rows. At the end of a round it offers what
its parameters changed by since the values that all nodes have in common, and goes on training. Once
the coordinator has averaged the nodes' parts and taken an outer step, the update replaces the
node's own part in its parameters; what it learned meanwhile stays and is part of the next round.

What compression takes from a part stays in the node's parameters, too, so it is not lost: only what
was offered is replaced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..base.settings import Settings
from ..base.world import Place
from ..data.packing import count_tokens
from ..training.accounting import Stopwatch
from ..training.recorder import Recorder
from ..training.trainer import StepRecord, Trainer, TrainingFailed, flat, learning_rate_at, views
from .compression import compress, decompress, from_bytes, to_bytes
from .exchange import Feed
from .round_client import RoundClient, Terms, Vector, pace_of, step_of
from .round_plan import steps_in_round


@dataclass(slots=True)
class Sent:
    """A part that was offered: what it says once it is decompressed, and the rows it comes from."""

    round: int
    parts: list[torch.Tensor]
    rows: int
    offering: Future[None]


@dataclass(slots=True)
class Pace:
    """What this node did in the present round."""

    rows: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)


def stride_of(scaling: str, rows: int, whole: int) -> float:
    """What a node's learning rate is multiplied by while it has so many of the `whole` rows of a
    step.

    Adam divides by the root of the mean square of gradients, in which noise prevails where batches
    are small, and a part p of the rows has 1 / p of the noise's variance: its steps along the
    gradient are sqrt(p) of those that all rows would give. With a stride of 1 / sqrt(p) the
    average of the nodes, weighted by rows, moves as far as one step of all rows, and as noisily:
    the sum of p x sqrt(p) / sqrt(p) is 1, and so is that of p^2 / p. It is the square-root rule
    for Adam (arXiv 2205.10287, section 4) with an average in place of a larger batch.
    """
    return math.sqrt(whole / rows) if scaling == "sqrt" else 1.0


class LocalRounds:
    """One node's side. All ranks of the node call the same methods; rank 0 has the exchange.

    `evaluate(step)` and `save(step, state)` are called with the values that all nodes have in
    common in place.
    """

    own = True  # nodes that trained by themselves differ in what their optimisers remember

    def __init__(
        self,
        trainer: Trainer,
        recorder: Recorder,
        place: Place,
        training: str,
        *,
        evaluate: Callable[[int], None],
        save: Callable[[int, dict[str, Any]], None],
    ) -> None:
        self.trainer = trainer
        self.recorder = recorder
        self.settings: Settings = trainer.settings
        self.world = trainer.world
        self._evaluate = evaluate
        self._save = save
        # What all nodes have in common, and after which step: changed under `trainer.changing`.
        self._common = flat(trainer.parameters)
        self._common_step = 0
        terms = Terms(
            exchanged="changes",
            training=training,
            round_steps=steps_in_round(self.settings.round_steps, len(self._common)),
            values=len(self._common),
            compression=self.settings.round_compression,
        )
        self.client = RoundClient(trainer, recorder, place, terms)
        self._plan = self.client.plan
        self._applied = 0
        self._sent: Sent | None = None
        self._rows = 0  # behind what differs from the common values
        self._pace = Pace()
        self._writer = ThreadPoolExecutor(1)
        self._stopwatch = Stopwatch()
        self._own: dict[int, StepRecord] = {}  # this node's steps that are not applied yet
        self._trained_s = 0.0

    def begin(self, done: int) -> int:
        """Agree with the other nodes on where to begin; this one could after `done` steps.
        Returns the steps that are done.
        """
        step, self._common = self.client.begin(done, self._common)
        self.trainer.adopt(self._common)
        self._common_step = step
        self._applied = self.client.first - 1
        return step

    # ---- training --------------------------------------------------------------------------------

    def train(self, done: int) -> None:
        """Do the steps after `done`, and end with the values that all nodes have in common."""
        self._stopwatch.restart()
        while done < self.settings.steps:
            number = self._plan.after(done)
            self._round(number, done)
            done = self._plan.end_of(max(number, self._applied))
        while self._applied < self._plan.last:
            self._apply()
        self._end()

    def _round(self, number: int, done: int) -> None:
        """Train until the round's end, or until it was closed without this node."""
        for step in range(done + 1, self._plan.end_of(number) + 1):
            self._step(step)
            self._apply_what_is_here()
            if self._applied >= number:
                self._hurry()
                return
        self._finish(number)

    def _step(self, step: int) -> None:
        whole = self.trainer.rows_of(step)
        rows = self.client.rows_of(step, whole)
        if not rows:
            return
        self.recorder.before_step(step)
        stride = stride_of(self.settings.inner_scaling, len(rows), len(whole))
        record = self.trainer.step(step, rows, stride=stride)
        self._rows += len(rows)
        self._pace.rows += len(rows)
        self._pace.seconds += record.seconds
        self.recorder.count_tokens(count_tokens(rows))
        seconds = self._lap()
        self._own[step] = replace(record, seconds=seconds)
        self._pace.curve.append(step_of(step, rows, record.loss, seconds))
        self.recorder.show(record)

    def _lap(self) -> float:
        """Seconds since the last step ended, with all that averaging took from it."""
        seconds = self._stopwatch.lap()
        self._trained_s += seconds
        return seconds

    def _finish(self, number: int) -> None:
        """Offer this node's part; at most one is under way, so the one before is waited for."""
        while self._applied < number - 1:
            self._apply()
        self._apply_what_is_here()
        if self._applied >= number:
            self._hurry()
        elif self.world.rank == 0:
            self._send(number)
        self._pace = Pace()

    def _send(self, number: int) -> None:
        change = self._common - flat(self.trainer.parameters)
        if not bool(torch.isfinite(change).all()):
            raise TrainingFailed(f"parameters are not finite after round {number}")
        parts = compress(change, self.settings.round_compression)
        pace = self._pace
        record = {
            "rows": self._rows,
            "pace": pace_of(pace.rows, pace.seconds),
            "curve": pace.curve,
        }
        content = [to_bytes(part) for part in parts]
        offering = self._writer.submit(self.client.offer, number, content, record)
        self._sent = Sent(number, parts, self._rows, offering)

    def _hurry(self) -> None:
        """The others went on without this node: report its pace, to get fewer rows."""
        pace, self._pace = self._pace, Pace()
        if pace.rows:
            self.client.post({"type": "pace", "pace": pace_of(pace.rows, pace.seconds)})

    # ---- updates ---------------------------------------------------------------------------------

    def _apply_what_is_here(self) -> None:
        while self._applied < self._plan.last and self.client.has_update(self._applied + 1):
            self._apply()

    def _apply(self) -> None:
        """Take the next update, wait for it if need be, and move all parameters by it."""
        number = self._applied + 1
        feed = self.client.take_update(number, self._require_offered)
        update = self._update(feed) if self.world.rank == 0 else None
        change = torch.empty_like(self._common)
        if update is not None:
            change.copy_(self._change(feed, number, update))
        self.world.broadcast(change)
        self.trainer.adopt(flat(self.trainer.parameters) + change)
        self.world.synchronize()  # not with the lock, since other ranks may be gone
        with self.trainer.changing:
            if update is not None:
                self._common += update
            self.world.synchronize()
            self._common_step = self._plan.end_of(number)
            self._applied = number
            self.recorder.add_steps([self._record(step) for step in feed.header["curve"]])
        self._look(number)

    def _record(self, step: dict[str, Any]) -> StepRecord:
        """One step of all nodes together, as an update reports it. Its seconds are the slowest
        node's; this node's waiting is its own, as parts of its own seconds.
        """
        own = self._own.pop(step["step"], None)
        scale = step["seconds"] / own.seconds if own is not None else 0.0
        return StepRecord(
            step=step["step"],
            loss=step["loss"],
            learning_rate=learning_rate_at(step["step"], self.settings),
            tokens=step["tokens"],
            seconds=step["seconds"],
            data_s=own.data_s * scale if own is not None else 0.0,
            communication_s=own.communication_s * scale if own is not None else 0.0,
        )

    def _update(self, feed: Feed) -> Vector:
        """What the common values change by, on rank 0."""
        compression = feed.header["compression"]
        parts = from_bytes(feed.content, compression, len(self._common))
        return decompress([part.to(self.world.device) for part in parts], compression)

    def _change(self, feed: Feed, number: int, update: Vector) -> Vector:
        """What the parameters change by, on rank 0: the update takes the place of our part."""
        sent, self._sent = self._sent, None
        if sent is None or sent.round != number:
            self._sent = sent
            return update
        sent.offering.result()
        self.client.withdraw(number)
        if not self.client.includes(feed):
            return update
        self._rows -= sent.rows
        return update + decompress(sent.parts, self.settings.round_compression)

    def _look(self, number: int) -> None:
        """Evaluate and save what all nodes have in common, when that is due; takes no training
        time.
        """
        step, settings = self._common_step, self.settings
        last = step == settings.steps
        if last:
            self._end_last_step()
        with self._stopwatch.paused():
            if self._plan.is_due(number, settings.eval_every):
                mine = flat(self.trainer.parameters)
                self.trainer.adopt(self._shared_common())
                self._evaluate(step)
                self.trainer.adopt(mine if not last else self._common)
            if self._plan.is_due(number, settings.checkpoint_every):
                self._save(step, self.state())

    def _end_last_step(self) -> None:
        """Waiting for the last update belongs to the training, too."""
        self.recorder.extend_last_step(self._lap())

    def _shared_common(self) -> Vector:
        return self.world.broadcast(self._common)

    @property
    def done(self) -> int:
        """The step after which all nodes had the values of `state` in common."""
        return self._common_step

    def state(self) -> dict[str, Any]:
        """As `Trainer.state`, but with the values that all nodes have in common; on rank 0."""
        adapter = list(views(self._common, self.trainer.parameters))
        return {"adapter": adapter, "optimiser": self.trainer.optimiser.state_dict()}

    # ---- the end ---------------------------------------------------------------------------------

    def _end(self) -> None:
        """All nodes must have the same values now; who reports for all is named last."""
        common = self._shared_common()
        self.trainer.adopt(common)
        self.client.end(common)
        self._writer.shutdown()

    def figures(self) -> dict[str, tuple[float, str]]:
        """What averaging cost this node."""
        rounds = self._applied - self.client.first + 1
        return self.client.figures(rounds, self._trained_s)

    def _require_offered(self) -> None:
        """Raises what went wrong while our part was written: nobody would answer it."""
        if self._sent is not None and self._sent.offering.done():
            self._sent.offering.result()
