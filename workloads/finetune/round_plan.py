"""Which steps make a round, and which rows of a step are whose. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from packing import Row

GOLDEN = (math.sqrt(5) - 1) / 2


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


def share_of(rows: Sequence[Row], shares: Sequence[float], index: int, step: int) -> Sequence[Row]:
    """One node's part of a step's rows. Together the nodes have each row once; what does not divide
    falls to one or the other from step to step, so that on average each gets exactly its share.
    """
    offset = step * GOLDEN % 1

    def bound(before: int) -> int:
        if before in (0, len(shares)):
            return len(rows) if before else 0
        return min(len(rows), math.floor(sum(shares[:before]) * len(rows) + offset))

    return rows[bound(index) : bound(index + 1)]
