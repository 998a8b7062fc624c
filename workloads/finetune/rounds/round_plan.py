"""Which steps make a round, what is exchanged at its end, and whose a step's rows are. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..base.settings import Settings
from ..data.packing import Row

GOLDEN = (math.sqrt(5) - 1) / 2
# Changes of up to so many parameters are averaged more often: there is less to send
# (docs/benchmarks.md).
FEW_PARAMETERS = 1_000_000
ROUND_OF_FEW, ROUND_OF_MANY = 5, 10
# What is for changes alone, and its default; a rule in workload.yaml refuses other values together
# with `round_exchange=gradients`.
FOR_CHANGES: dict[str, float | str] = {
    "inner_scaling": "sqrt",
    "outer_learning_rate": 1.0,
    "outer_momentum": 0.0,
    "round_compression": "int8",
    "round_steps": "auto",
}


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """Rounds of `every` steps, numbered from 1; the last one may be shorter."""

    steps: int
    every: int

    @property
    def last(self) -> int:
        """The number of the last round."""
        return math.ceil(self.steps / self.every)

    def after(self, step: int) -> int:
        """The round that the next step belongs to; after the last step there is none."""
        return self.last + 1 if step >= self.steps else step // self.every + 1

    def end_of(self, number: int) -> int:
        """The last step of a round."""
        return min(number * self.every, self.steps)

    def is_due(self, number: int, every: int) -> bool:
        """Whether what is done after the training and every so many steps (0: not meanwhile) falls
        to a round's end.
        """
        before, step = self.end_of(number - 1), self.end_of(number)
        return step == self.steps or (every > 0 and before // every < step // every)


@dataclass(frozen=True, slots=True)
class Split:
    """How the nodes divide a step's rows: `ranks` and `shares` of each node."""

    ranks: Sequence[int]
    shares: Sequence[float]

    def rows_of(self, index: int, rows: Sequence[Row], step: int) -> Sequence[Row]:
        """One node's part of a step's rows. Together the nodes have each row once.

        While no node has more or less to do than its ranks would have with collectives, it has
        those very rows: rank r of all has r, r + ranks, ... Otherwise what does not divide falls to
        one or the other from step to step, so that on average each gets exactly its share.
        """
        total, first = sum(self.ranks), sum(self.ranks[:index])
        if len(rows) >= total and self._is_by_ranks(total):
            mine = range(first, first + self.ranks[index])
            return [row for place, row in enumerate(rows) if place % total in mine]
        offset = step * GOLDEN % 1
        start, end = (self._bound(before, len(rows), offset) for before in (index, index + 1))
        return rows[start:end]

    def _is_by_ranks(self, total: int) -> bool:
        pairs = zip(self.shares, self.ranks, strict=True)
        return all(math.isclose(share * total, count, rel_tol=1e-6) for share, count in pairs)

    def _bound(self, before: int, rows: int, offset: float) -> int:
        """Where the rows of so many nodes end."""
        if before in (0, len(self.shares)):
            return rows if before else 0
        return min(rows, math.floor(sum(self.shares[:before]) * rows + offset))


def steps_in_round(setting: int | str, parameters: int) -> int:
    """The setting, or what suits so many trained parameters whose changes are averaged."""
    if isinstance(setting, int):
        return setting
    return ROUND_OF_FEW if parameters <= FEW_PARAMETERS else ROUND_OF_MANY


def without_effect(settings: Settings) -> list[str]:
    """What was set and is for changes alone, as where `auto` chose gradients."""
    given = ((name, getattr(settings, name)) for name in FOR_CHANGES)
    return [f"{name}={value}" for name, value in given if value != FOR_CHANGES[name]]
