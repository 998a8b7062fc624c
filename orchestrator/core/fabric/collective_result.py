"""A collective that was tried: what its ranks told, and whether it did as the rung claims. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core.base.outcome import (
    Exited,
    Outcome,
    Signalled,
    describe_outcome,
    has_succeeded,
)
from orchestrator.core.model.comm_modes import CommMode

# The stages of a trial in order, and what a rank that did not get further was doing.
STAGES = {
    "started": "starting",
    "imported": "waiting for the other ranks",
    "met": "joining the process group",
    "joined": "in its first all-reduce",
    "reduced": "measuring",
    "measured": "ending",
}
SOCKET = "Socket"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTrial:
    """What one rank told of a trial, and how its process ended.

    ``stage`` is the last one that it came through. ``seconds`` is what an all-reduce of ``size``
    bytes took, by the slowest rank. ``network`` is what NCCL says that it used between nodes
    (``IB``, ``Socket``, ...), "" if it says nothing; ``detail`` its own words.
    """

    node: str
    rank: int
    outcome: Outcome
    stage: str = "started"
    error: str = ""
    size: int = 0
    seconds: float = 0.0
    network: str = ""
    detail: str = ""
    versions: str = ""

    @property
    def ok(self) -> bool:
        return self.stage == "measured" and not self.error and has_succeeded(self.outcome)


def trial_complaint(ranks: Sequence[RankTrial]) -> str:
    """How the trial failed, by the rank that tells most; "" if it did not."""
    bad = [rank for rank in ranks if not rank.ok]
    if not bad:
        return "" if ranks else "no rank was started"
    order = list(STAGES)
    # Whoever is furthest behind holds the others up; of those, one that says why.
    worst = min(bad, key=lambda rank: (order.index(rank.stage), not rank.error, rank.rank))
    return f"rank {worst.rank} on {worst.node}, {STAGES[worst.stage]}: {_failure_reason(worst)}"


def wrong_mode_reason(rung: CommMode, ranks: Sequence[RankTrial]) -> str:
    """Why the rung is not what it claims to be though every value was right; "" if it is."""
    if rung is not CommMode.NCCL_IB:
        return ""
    fallen = [rank for rank in ranks if rank.network == SOCKET]
    if not fallen:
        return ""
    nodes = ", ".join(dict.fromkeys(rank.node for rank in fallen))
    said = f" ({fallen[0].detail})" if fallen[0].detail else ""
    return f"NCCL does not use InfiniBand on {nodes} but sockets{said}"


def own_failures(ranks: Sequence[RankTrial]) -> Iterator[RankTrial]:
    """Ranks that failed by themselves, before another node had anything to do with it."""
    for rank in ranks:
        ended = isinstance(rank.outcome, Exited | Signalled) and not has_succeeded(rank.outcome)
        if rank.stage == "started" and ended:
            yield rank


def _failure_reason(rank: RankTrial) -> str:
    return rank.error or describe_outcome(rank.outcome)
