"""What ``round_machine`` takes in, gives out and keeps: events, actions, state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.core.sharing.rounds import (
    Ended,
    Exchanged,
    Joined,
    Offered,
    Pace,
    Part,
    RoundTerms,
)

Report = Joined | Offered | Part | Pace | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a coordinator must know to go on: where its attempt began, and the last round closed.

    ``shares``: for each round that was announced, each node's; ``step``: the end of ``round``.
    """

    attempt: int
    start: int
    participants: tuple[str, ...]
    round: int
    step: int
    values: int
    shares: Mapping[int, tuple[float, ...]] = field(default_factory=dict)


# ---- what happened ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """A node's first rank reported."""

    node: str
    report: Report


@dataclass(frozen=True, slots=True)
class LivingSeen:
    """The nodes that still work, in rank order."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StartSaved:
    """Where the attempt begins is on disk."""


@dataclass(frozen=True, slots=True)
class ParametersFetched:
    """Those of the newest step are here."""


@dataclass(frozen=True, slots=True)
class PartFetched:
    """A node's part was fetched and checked, or cannot count."""

    round: int
    node: str
    counts: bool


@dataclass(frozen=True, slots=True)
class RoundSaved:
    """The round that was to be closed is, on disk."""


@dataclass(frozen=True, slots=True)
class Look:
    """All that was there has been taken in: decide."""


RoundEvent = Heard | LivingSeen | StartSaved | ParametersFetched | PartFetched | RoundSaved | Look

# ---- what to do ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SaveStart:
    """Remember where the attempt begins; ``StartSaved`` follows."""

    kept: Kept


@dataclass(frozen=True, slots=True)
class FeedWords:
    """Give a node these words as its ``number``-th feed."""

    node: str
    number: int
    words: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FeedParameters:
    """Give a node the parameters that were fetched."""

    node: str


@dataclass(frozen=True, slots=True)
class FetchParameters:
    """Bring them from the node that has them; ``ParametersFetched`` follows."""

    node: str
    offer: Offered


@dataclass(frozen=True, slots=True)
class FetchPart:
    """Bring and check a node's part; ``PartFetched`` follows."""

    node: str
    part: Part
    terms: RoundTerms


@dataclass(frozen=True, slots=True)
class CloseRound:
    """Add up the parts of round ``kept.round`` by ``weights``, take the outer step, and remember
    it; ``RoundSaved`` follows. Nothing more of that round is fetched.
    """

    kept: Kept
    terms: RoundTerms
    weights: Mapping[str, float]
    header: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundSummary:
    """A round that was closed. ``began``: when its first part came."""

    round: int
    step: int
    rows: Mapping[str, int]
    missing: tuple[str, ...]
    part_bytes: int
    exchanged: Exchanged
    began: float


@dataclass(frozen=True, slots=True)
class PublishUpdate:
    """Give a round's update to ``nodes`` as feed ``number``; then report the round, if it is to be
    reported.
    """

    round: int
    number: int
    nodes: tuple[str, ...]
    terms: RoundTerms
    summary: RoundSummary | None


@dataclass(frozen=True, slots=True)
class Fail:
    """The training cannot continue."""

    why: str


@dataclass(frozen=True, slots=True)
class EndService:
    """Nothing more is to be done once all feeds are given."""


RoundAction = (
    SaveStart
    | FeedWords
    | FeedParameters
    | FetchParameters
    | FetchPart
    | CloseRound
    | PublishUpdate
    | Fail
    | EndService
)

# ---- where an attempt stands --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recalled:
    """Another coordinator began the attempt; ``updates`` are the rounds whose updates are here."""

    kept: Kept
    updates: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Joining:
    """Nodes are waited for. ``since``: when the first one was there."""

    since: float | None = None


@dataclass(frozen=True, slots=True)
class Saving:
    """Where all begin is decided and not yet on disk."""

    kept: Kept


@dataclass(frozen=True, slots=True)
class Starting:
    """One node has the newest parameters, and is asked for them. ``alone``: others may still be
    asked to begin elsewhere if it is lost.
    """

    kept: Kept
    source: str
    alone: bool
    asked: bool = False
    fetched: bool = False


@dataclass(frozen=True, slots=True)
class Training:
    """Round ``kept.round + 1`` is under way. ``fetches``: nodes whose part is being fetched (None),
    counts or does not; ``began``: when the first one was announced.
    """

    kept: Kept
    fetches: Mapping[str, bool | None] = field(default_factory=dict)
    began: float | None = None


@dataclass(frozen=True, slots=True)
class Closing:
    """A round has all its parts and is not yet closed on disk; ``kept`` is what will be then."""

    kept: Kept
    summary: RoundSummary


@dataclass(frozen=True, slots=True)
class Ending:
    """The last round is closed. ``since``: when the first node had applied it."""

    kept: Kept
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing more happens."""


RoundPhase = Recalled | Joining | Saving | Starting | Training | Closing | Ending | Over


@dataclass(frozen=True, slots=True)
class RoundReports:
    """Everything that counts of what nodes reported, by node; of a round's parts the first one."""

    joined: Mapping[str, Joined] = field(default_factory=dict)
    offered: Mapping[str, Offered] = field(default_factory=dict)
    parts: Mapping[int, Mapping[str, Part]] = field(default_factory=dict)
    paces: Mapping[str, Pace] = field(default_factory=dict)
    ended: Mapping[str, Ended] = field(default_factory=dict)

    def with_report(self, node: str, report: Report) -> RoundReports:
        """These and one more; what a node says again changes nothing."""
        match report:
            case Joined():
                return replace(self, joined={node: report, **self.joined})
            case Offered():
                return replace(self, offered={node: report, **self.offered})
            case Part():
                parts = {node: report, **self.parts.get(report.round, {})}
                known = replace(self, parts={**self.parts, report.round: parts})
                return known.with_report(node, report.pace)
            case Pace():
                steps = self.joined[node].terms.round_steps if node in self.joined else 1
                pace = report.after(self.paces.get(node), steps)
                return replace(self, paces={**self.paces, node: pace})
            case Ended():
                return replace(self, ended={node: report, **self.ended})

    def after_round(self, number: int) -> RoundReports:
        """Without the parts of a round that is closed, and of those before."""
        parts = {known: given for known, given in self.parts.items() if known > number}
        return replace(self, parts=parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundState:
    """One attempt. ``ranks``: each node of the plan, in rank order, and how many ranks it has;
    ``next_feed``: the number that nodes wait for; ``reported_at``: when a round was last reported,
    and who was missing then.
    """

    attempt: int
    ranks: Mapping[str, int]
    phase: RoundPhase
    living: tuple[str, ...] = ()
    reports: RoundReports = RoundReports()
    next_feed: int
    reported_at: float | None = None
    reported_missing: tuple[str, ...] = ()
