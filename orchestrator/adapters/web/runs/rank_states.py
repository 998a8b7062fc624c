"""How each rank of a run stands. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core.run.events import RankExited
from orchestrator.core.run.state import RunState, ended_well

MAX_RANKS = 1024
_TONES = {"running": "live", "done": "good", "failed": "bad", "stopped": "odd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RankState:
    """``state``: waiting, running, done, failed, or stopped by us."""

    rank: int
    node: str
    state: str

    @property
    def tone(self) -> str:
        return _TONES.get(self.state, "waiting")


def rank_states(state: RunState | None) -> tuple[RankState, ...]:
    """Of every rank of the plan, by number."""
    if state is None or state.plan is None:
        return ()
    return tuple(sorted(_states(state), key=lambda rank: rank.rank))


def count_states(ranks: Sequence[RankState]) -> str:
    """``14 running, 2 failed``."""
    return ", ".join(f"{count} {state}" for state, count in Counter(r.state for r in ranks).items())


def _states(state: RunState) -> Iterator[RankState]:
    ended = {each.rank: each for each in state.endings if isinstance(each, RankExited)}
    for share in state.plan.nodes if state.plan is not None else ():
        started = state.nodes[share.name].ranks
        for rank in share.ranks:
            word = _ended_word(ended[rank]) if rank in ended else ""
            word = word or ("running" if rank in started else "waiting")
            yield RankState(rank=rank, node=share.name, state=word)


def _ended_word(ending: RankExited) -> str:
    if ended_well(ending):
        return "done"
    return "stopped" if ending.by_us else "failed"
