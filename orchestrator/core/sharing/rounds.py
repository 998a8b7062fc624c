"""Training without collectives between nodes, decided: where it begins, who trains on how many
rows, when a round closes, and what the nodes' parts add up to. Pure.

Steps are counted over the whole run, and so are rounds: round r ends with step r x ``round_steps``,
or with the last step. In each step the nodes share the rows that all ranks together would have
trained on, in proportion to their speed. What they exchange at a round's end is either what their
parameters changed by, which is averaged, or, in rounds of one step, their gradients, which are
summed: then training is what it would be with collectives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

# A node is late when it takes longer than the slowest of the others by this factor.
PATIENCE = 3.0
MIN_PATIENCE_S = 20.0
# Shares stay as they are for less: a row more or less on a node costs more than it wins.
WORTH_A_CHANGE = 0.08
# With the same rows on every node as with collectives, sums of gradients are the same to the bit:
# that is given up only for a step that is so much shorter.
WORTH_OTHER_SUMS = 0.25
# After so many steps a node's pace counts half beside its latest: a moment's noise moves no rows.
MEMORY_STEPS = 5
ROUNDING = 1e-9
FEED_START, FEED_PARAMETERS, FEED_FIRST_UPDATE = 1, 2, 3


class Exchanged(StrEnum):
    """What a part is: what a node's parameters changed by, or its share of a step's gradient."""

    CHANGES = "changes"
    GRADIENTS = "gradients"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTerms:
    """What all nodes must agree on. ``training`` is a digest of settings and data; ``values`` is
    how many numbers a part has; ``rows`` are trained on in each step by all nodes together.
    ``learning_rate`` and ``momentum`` are those of the outer step that averaged changes are for.
    """

    training: str
    steps: int
    round_steps: int
    rows: int
    values: int
    compression: str
    learning_rate: float
    momentum: float
    exchanged: Exchanged = Exchanged.CHANGES

    @property
    def last_round(self) -> int:
        return math.ceil(self.steps / self.round_steps)

    def round_after(self, step: int) -> int:
        """The round that the step after ``step`` belongs to; after the last step there is none."""
        return self.last_round + 1 if step >= self.steps else step // self.round_steps + 1

    def end_of(self, number: int) -> int:
        """The last step of a round."""
        return min(number * self.round_steps, self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A node is ready: ``step`` of its newest checkpoint, 0 = none, and the digest of what it would
    begin with.
    """

    terms: RoundTerms
    step: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A file that a node offers, in its folder for that."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTold:
    """One step on one node, or of all nodes together: loss in nats per target token."""

    step: int
    loss: float
    targets: int
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """So many rows in so many seconds of training: what shares are made of."""

    rows: float
    seconds: float

    def after(self, before: Pace | None, steps: int) -> Pace:
        """This one, of so many ``steps``, steadied by what was known ``before``."""
        if before is None:
            return self
        kept = 0.5 ** (steps / MEMORY_STEPS)
        return Pace(
            rows=self.rows + kept * before.rows, seconds=self.seconds + kept * before.seconds
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A node's part in a round: what its training changed, in a file, and how it came to it.

    ``rows``: all that the change comes from, more than the round's if an earlier part was late.
    """

    round: int
    rows: int
    pace: Pace
    file: Offered
    curve: tuple[StepTold, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A node has applied the last round; the digest of its parameters."""

    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """After which step the nodes begin, who has the parameters for that, and who needs them."""

    step: int
    source: str
    needing: tuple[str, ...]


def choose_start(joined: Mapping[str, Joined]) -> Start:
    """The newest step that any node has; of several such nodes the first. Raises ``ValueError``
    when nodes were given different settings or data.
    """
    source, first = next(iter(joined.items()))
    for node, other in joined.items():
        if other.terms != first.terms:
            raise ValueError(
                f"{source} and {node} have different {_terms_difference(first.terms, other.terms)}"
            )
    step = max(node.step for node in joined.values())
    source = next(name for name, node in joined.items() if node.step == step)
    wanted = joined[source]
    needing = (n for n, j in joined.items() if (j.step, j.sha256) != (step, wanted.sha256))
    return Start(step=step, source=source, needing=tuple(needing))


def _terms_difference(one: RoundTerms, other: RoundTerms) -> str:
    if one.training != other.training:
        return "settings or data"
    names = (name for name in RoundTerms.__slots__ if getattr(one, name) != getattr(other, name))
    return ", ".join(names)


def first_shares(ranks: Mapping[str, int]) -> dict[str, float]:
    """Before anything is known of the nodes' speed: each rank has as much to do as the others."""
    total = sum(ranks.values())
    return {node: count / total for node, count in ranks.items()}


def next_shares(
    now: Mapping[str, float], living: Sequence[str], paces: Mapping[str, Pace], terms: RoundTerms
) -> dict[str, float]:
    """Which part of each step's rows the ``living`` nodes train on. A lost node's goes to them.

    Nobody gets less than a row. Shares stay as they are until every pace is known, and for
    differences that do not matter.
    """
    kept = _normalise_weights({node: now.get(node, 0.0) for node in living}, terms.rows)
    speeds = {n: paces[n].rows / paces[n].seconds for n in living if n in paces}
    if len(speeds) < len(living):
        return kept
    if terms.exchanged is Exchanged.GRADIENTS:
        return _next_split(kept, speeds, terms.rows)
    wanted = _normalise_weights(speeds, terms.rows)
    if all(abs(wanted[node] / kept[node] - 1) <= WORTH_A_CHANGE for node in living):
        return kept
    return wanted


def shares_from(
    number: int, agreed: Sequence[float], wanted: Sequence[float], terms: RoundTerms
) -> dict[int, tuple[float, ...]]:
    """The shares of the two rounds after ``number``, as that one closes. Nodes that average changes
    have begun the next round by then, with what was ``agreed``. Nodes that sum gradients wait, so
    that what is ``wanted`` holds at once: a lost node's rows are missing from one step alone.
    """
    waiting = terms.exchanged is Exchanged.GRADIENTS
    return {number + 1: tuple(wanted if waiting else agreed), number + 2: tuple(wanted)}


def _next_split(
    kept: Mapping[str, float], speeds: Mapping[str, float], rows: int
) -> dict[str, float]:
    """Shares of nodes that wait for each other in every step: whole rows, so that the slowest ends
    as soon as can be.
    """
    if rows < len(speeds):
        return dict(kept)
    counts = dict.fromkeys(speeds, 1)
    for _ in range(rows - len(counts)):
        counts[min(counts, key=lambda node: (counts[node] + 1) / speeds[node])] += 1
    now_s = max(kept[node] * rows / speed for node, speed in speeds.items())
    then_s = max(counts[node] / speed for node, speed in speeds.items())
    if then_s >= (1 - WORTH_OTHER_SUMS) * now_s:
        return dict(kept)
    return {node: count / rows for node, count in counts.items()}


def weights_of(terms: RoundTerms, rows: Mapping[str, int]) -> dict[str, float]:
    """What each node's part is multiplied by before all are added up: gradients are sums already;
    of changes, a node's counts by the ``rows`` that it comes from.
    """
    if terms.exchanged is Exchanged.GRADIENTS:
        return dict.fromkeys(rows, 1.0)
    total = sum(rows.values())
    return {node: count / total for node, count in rows.items()}


def outer_step(terms: RoundTerms) -> tuple[float, float]:
    """The rate and momentum that what was added up is applied with: an update is taken off the
    parameters, and a gradient given as it is.
    """
    if terms.exchanged is Exchanged.GRADIENTS:
        return -1.0, 0.0
    return terms.learning_rate, terms.momentum


def _normalise_weights(weights: Mapping[str, float], rows: int) -> dict[str, float]:
    """In proportion to ``weights``, summing up to 1, nobody below one row (or an equal share)."""
    if sum(weights.values()) <= 0:
        return dict.fromkeys(weights, 1 / len(weights))
    floor = min(1 / rows, 1 / len(weights))
    raised: set[str] = set()
    while True:
        free = 1 - floor * len(raised)
        total = sum(weight for node, weight in weights.items() if node not in raised)
        shares = {n: floor if n in raised else w / total * free for n, w in weights.items()}
        below = {node for node, share in shares.items() if share < floor * (1 - ROUNDING)}
        if not below - raised:
            return shares
        raised |= below


def patience_s(delivered: Iterable[Pace]) -> float:
    """How long others are waited for, from the first part of a round on."""
    return max([MIN_PATIENCE_S, *(PATIENCE * pace.seconds for pace in delivered)])


def feed_number(number: int, first: int) -> int:
    """The number of a round's update among a node's feeds; the verdict at the end follows."""
    return FEED_FIRST_UPDATE + number - first


def merge_curves(curves: Sequence[Sequence[StepTold]]) -> tuple[StepTold, ...]:
    """The steps of all nodes together: losses weighted by target tokens, tokens summed up, and the
    seconds of the node that took longest for all of them.
    """
    slowest = max(curves, key=lambda curve: sum(told.seconds for told in curve), default=())
    paced = {told.step: told.seconds for told in slowest}
    by_step: dict[int, list[StepTold]] = {}
    for told in (told for curve in curves for told in curve):
        by_step.setdefault(told.step, []).append(told)
    return tuple(_merge_steps(by_step[step], paced.get(step)) for step in sorted(by_step))


def _merge_steps(told: Sequence[StepTold], seconds: float | None) -> StepTold:
    targets = sum(one.targets for one in told)
    return StepTold(
        step=told[0].step,
        loss=sum(one.loss * one.targets for one in told) / targets,
        targets=targets,
        tokens=sum(one.tokens for one in told),
        seconds=max(one.seconds for one in told) if seconds is None else seconds,
    )
