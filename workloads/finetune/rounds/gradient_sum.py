"""Training without collectives between nodes, exactly: each step's gradient is summed over SSH.

Each node computes the gradient of its rows; the coordinator adds up the nodes' parts, and all take
the same optimiser step with the sum, as they would after an all-reduce. With two nodes of a rank
each, the sums, and so the whole training, are those of the collective to the bit: one addition has
no order. It is for adapters so small that a step waits little for the exchange.

A node that is late is left out of a step: the sum of the others is scaled up to the whole step, and
this node takes it like everybody else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..base.world import Place, World
from ..data.packing import Row, count_targets, count_tokens
from ..training.recorder import Recorder
from ..training.trainer import Trainer
from .compression import from_bytes, to_bytes
from .round_client import RoundClient, Terms, pace_of, step_of


class GradientSum:
    """One node's side. All ranks of the node call the same methods; rank 0 has the exchange.

    `after_step(step)` is called when all nodes have taken it.
    """

    own = False  # all nodes have the same state after each step

    def __init__(
        self,
        trainer: Trainer,
        recorder: Recorder,
        place: Place,
        training: str,
        *,
        after_step: Callable[[int], None],
    ) -> None:
        self.trainer = trainer
        self.recorder = recorder
        self.world = trainer.world
        self._after_step = after_step
        terms = Terms(
            exchanged="gradients",
            training=training,
            round_steps=1,
            values=len(trainer.buffer),
            compression="none",
        )
        self.client = RoundClient(trainer, recorder, place, terms)
        self._trained_s = 0.0

    def begin(self, done: int) -> int:
        """Agree with the other nodes on where to begin; this one could after `done` steps.
        Returns the steps that are done.
        """
        step, state = self.client.begin(done, self.trainer.flat_state())
        self.trainer.adopt_state(state, step)
        return step

    def train(self, done: int) -> None:
        """Do the steps after `done`."""
        for step in range(done + 1, self.trainer.settings.steps + 1):
            began = time.monotonic()
            self._step(step)
            self._trained_s += time.monotonic() - began
            self._after_step(step)
        self.client.end(self.trainer.flat_state())

    def _step(self, step: int) -> None:
        others = OtherNodes(self.client, step, self.trainer.rows_of(step), self.world)
        self.recorder.before_step(step)
        self.trainer.step(step, others.mine, self.recorder.add_step, others)
        self.recorder.count_tokens(count_tokens(others.mine))

    @property
    def done(self) -> int:
        """The step that `state` comes from."""
        return len(self.recorder.steps)

    def state(self) -> dict[str, Any]:
        """As `Trainer.state`."""
        return self.trainer.state()

    def figures(self) -> dict[str, tuple[float, str]]:
        """What the exchange cost this node."""
        rounds = self.client.plan.last - self.client.first + 1
        return self.client.figures(rounds, self._trained_s)


class OtherNodes:
    """What they do of one step, of whose rows this node has `mine`."""

    def __init__(self, client: RoundClient, step: int, whole: Sequence[Row], world: World) -> None:
        self.whole = whole
        late = client.has_update(step)  # the others went on without this node
        self.mine: Sequence[Row] = () if late else client.rows_of(step, whole)
        self._client = client
        self._step = step
        self._world = world
        self._began = time.monotonic()

    def add(self, buffer: torch.Tensor) -> None:
        """The sum over all nodes takes the place of this node's part in `buffer`, whose last value
        is the loss.
        """
        if self.mine and self._world.rank == 0:
            self._client.offer(self._step, [to_bytes(buffer)], self._record(float(buffer[-1])))
        feed = self._client.take_update(self._step)
        if self._world.rank == 0:
            self._client.withdraw(self._step)
            (total,) = from_bytes(feed.content, feed.header["compression"], len(buffer))
            buffer.copy_(total)
        self._world.broadcast(buffer)
        (summed,) = feed.header["curve"]
        if summed["targets"] != count_targets(self.whole):
            buffer.mul_(count_targets(self.whole) / summed["targets"])

    def _record(self, loss: float) -> dict[str, Any]:
        """Of this node's part, whose `loss` is divided by the targets of all nodes."""
        rows, seconds = len(self.mine), time.monotonic() - self._began
        own = loss * count_targets(self.whole) / max(1, count_targets(self.mine))
        summary = step_of(self._step, self.mine, own, seconds)
        return {"rows": rows, "pace": pace_of(rows, seconds), "curve": [summary]}
