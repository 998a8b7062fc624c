"""One node's side of what nodes without collectives between them agree on, through the coordinator:
where they begin, who trains on which rows, each round's update, and that all end alike.

Feeds are numbered: 1 is the start, 2 the state if this node lacks it, then come the rounds'
updates, and the verdict at the end.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..base.settings import Settings
from ..base.world import Place
from ..data.packing import Row, count_targets, count_tokens
from ..training.recorder import Recorder
from ..training.trainer import Trainer
from .compression import digest, from_bytes, to_bytes
from .exchange import Exchange, Feed, packed
from .round_plan import RoundPlan, Split

START, STATE, FIRST_UPDATE = 1, 2, 3
Vector = torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What nodes exchange: `exchanged` in rounds of `round_steps`, `values` numbers as
    `compression` has them; `training` is the digest of settings and data.
    """

    exchanged: str
    training: str
    round_steps: int
    values: int
    compression: str


class RoundClient:
    """All ranks of the node call the same methods; rank 0 has the exchange."""

    def __init__(self, trainer: Trainer, recorder: Recorder, place: Place, terms: Terms) -> None:
        self.plan = RoundPlan(trainer.settings.steps, terms.round_steps)
        self.first = 1  # round of this attempt
        self.waited_s = 0.0  # for updates
        self.bytes = 0  # of parts and updates
        self._settings: Settings = trainer.settings
        self._rows = trainer.rows_per_step
        self._world = trainer.world
        self._recorder = recorder
        self._place = place
        self._terms = terms
        self._exchange = Exchange(Path(os.environ["ORCHESTRATE_EXCHANGE_DIR"]), self._world.number)
        self._reports = 0
        self._ranks: list[int] = []
        self._shares: dict[int, list[float]] = {}
        if self._rows < place.nodes:
            raise ValueError(f"{self._rows} rows in a step are too few for {place.nodes} nodes")

    # ---- the beginning ---------------------------------------------------------------------------

    def begin(self, done: int, state: Vector) -> tuple[int, Vector]:
        """Agree with the other nodes on where to begin; this one could after `done` steps, with
        `state`. Returns the steps that are done, and the state then.
        """
        self.post(self._joining(done, state))
        start = self._take(START).header
        if start["needs"]:
            given = self._take(STATE)
            state = self._received(given.content, state)
            self._recorder.restore(given.header)
            if self._world.rank == 0 and digest(state) != start["sha256"]:
                raise RuntimeError("the state to begin with arrived with another digest")
        if start["offer"] and self._world.rank == 0:
            content = packed(self._recorder.state(), [to_bytes(state)])
            self._exchange.offer("parameters.bin", content, {"type": "parameters"})
        self._ranks = list(start["ranks"])
        self._heed(start)
        step = int(start["step"])
        self.first = self.plan.after(step)
        return step, state

    def _joining(self, done: int, state: Vector) -> dict[str, Any]:
        settings, terms = self._settings, self._terms
        return {
            "type": "join",
            "step": done,
            "sha256": digest(state) if self._world.rank == 0 else "",
            "exchange": terms.exchanged,
            "training": terms.training,
            "steps": settings.steps,
            "round_steps": terms.round_steps,
            "rows": self._rows,
            "values": terms.values,
            "compression": terms.compression,
            "learning_rate": settings.outer_learning_rate,
            "momentum": settings.outer_momentum,
        }

    def _received(self, content: memoryview, like: Vector) -> Vector:
        """Rank 0's uncompressed vector, on every rank."""
        vector = torch.empty_like(like)
        if self._world.rank == 0:
            (received,) = from_bytes(content, "none", len(vector))
            vector.copy_(received)
        return self._world.broadcast(vector)

    # ---- rounds ----------------------------------------------------------------------------------

    def rows_of(self, step: int, rows: Sequence[Row]) -> Sequence[Row]:
        """This node's part of a step's rows."""
        shares = self._shares[self.plan.after(step - 1)]
        return Split(self._ranks, shares).rows_of(self._place.index, rows, step)

    def offer(self, number: int, content: Iterable[memoryview], record: dict[str, Any]) -> None:
        """Give this node's part in a round; on rank 0."""
        chunks = list(content)
        self.bytes += sum(map(len, chunks))
        announcement = {"type": "part", "round": number, **record}
        self._exchange.offer(_part(number), chunks, announcement)

    def withdraw(self, number: int) -> None:
        """The round is closed: its part is not asked for any more."""
        self._exchange.withdraw(_part(number))

    def has_update(self, number: int) -> bool:
        """Whether a round's update is here to be taken; the same on all ranks."""
        here = self._world.rank == 0 and self._exchange.has(self._feed_of(number))
        return self._world.any(here)

    def take_update(self, number: int, meanwhile: Callable[[], None] = lambda: None) -> Feed:
        """Wait for a round's update: its header on every rank, its content on rank 0."""
        began = time.monotonic()
        feed = self._take(self._feed_of(number), meanwhile)
        self.waited_s += time.monotonic() - began
        self.bytes += len(feed.content)
        self._heed(feed.header)
        return feed

    def includes(self, feed: Feed) -> bool:
        """Whether this node's part is in an update."""
        return self._place.index in feed.header["included"]

    # ---- the end ---------------------------------------------------------------------------------

    def end(self, state: Vector) -> None:
        """All nodes must have the same `state` now; who reports for all is named last."""
        if self._world.rank == 0:
            self._exchange.post({"type": "end", "sha256": digest(state)})
        self._heed(self._take(self._feed_of(self.plan.last + 1)).header)

    @property
    def reporting(self) -> bool:
        """Whether this node reports the training's results for all."""
        return self._reports == self._place.index

    def figures(self, rounds: int, trained_s: float) -> dict[str, tuple[float, str]]:
        """What so many rounds cost this node of `trained_s` seconds."""
        return {
            "rounds": (max(1, rounds), "rounds"),
            "round_bytes": (self.bytes / max(1, rounds), "bytes"),
            "round_wait": (self.waited_s / max(trained_s, 1e-9), "fraction"),
        }

    # ---- talking ---------------------------------------------------------------------------------

    def post(self, record: dict[str, Any]) -> None:
        """One line to the coordinator, from rank 0."""
        if self._world.rank == 0:
            self._exchange.post(record)

    def _feed_of(self, number: int) -> int:
        return FIRST_UPDATE + number - self.first

    def _take(self, number: int, meanwhile: Callable[[], None] = lambda: None) -> Feed:
        feed = Feed({}, memoryview(b""))
        if self._world.rank == 0:
            feed = self._exchange.take(number, self._settings.collective_timeout, meanwhile)
        text = self._world.share(json.dumps(feed.header).encode(), source=0)
        return Feed(json.loads(text), feed.content)

    def _heed(self, header: dict[str, Any]) -> None:
        """Who reports, and who trains on how much in the rounds to come."""
        self._reports = int(header["reports"])
        self._recorder.speaks = self._world.is_main and self.reporting
        given = {int(number): shares for number, shares in header.get("shares", {}).items()}
        self._shares.update(given)


def pace_of(rows: int, seconds: float) -> dict[str, float]:
    """So many rows in so many seconds, as the coordinator reads it."""
    return {"rows": rows, "seconds": seconds}


def step_of(step: int, rows: Sequence[Row], loss: float, seconds: float) -> dict[str, float]:
    """What a node did of a step, likewise; `loss` is the mean over its own targets."""
    return {
        "step": step,
        "loss": loss,
        "targets": max(1, count_targets(rows)),
        "tokens": count_tokens(rows),
        "seconds": seconds,
    }


def _part(number: int) -> str:
    return f"part-{number}.bin"
