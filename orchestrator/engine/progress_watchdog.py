"""The pulse of a run: when each rank was last heard of, and a word to the machine when they hang.

Silence counts only while somebody listens: not while this process itself was stopped or its machine
asleep, and not for a node whose link is broken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.run.events import Event, RankExited
from orchestrator.core.run.evidence import Stalled
from orchestrator.core.run.hang import Activity, suspect_hang
from orchestrator.core.run.kit_reports import Progressed, Reported
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.result import Result
from orchestrator.engine.support.clock import Clock

BEATS_PER_LIMIT = 20
MIN_BEAT_S, MAX_BEAT_S = 0.1, 5.0
# What may lie between two beats of a busy machine; more than that, nobody listened.
MAX_GAP_BEATS = 3
STEADY_REPORTS = 2
# Ranks that said nothing at all yet may be importing their libraries from a slow disk.
STARTUP_S = 60.0

Tell = Callable[[Event], None]
Rank = tuple[str, int]


@dataclass(slots=True)
class _Heard:
    """The last sign of life of one rank, on the pulse's own clock, and how it reports."""

    last: float
    ever: bool = False
    reports: int = 0
    done: bool = False


class ProgressWatchdog:
    """An observer of one run that posts ``Stalled``. ``broken`` names nodes without a link."""

    def __init__(
        self, state: RunState, clock: Clock, tell: Tell, broken: Callable[[], Collection[str]]
    ) -> None:
        self._state = state
        self._clock = clock
        self._tell = tell
        self._broken = broken
        self._heard: dict[Rank, _Heard] = {}
        self._reported = False
        self._beaten_at = clock.monotonic()
        self._now = 0.0
        self._limit_s = state.request.budgets.hang_s
        limit_s = self._limit_s or 0.0
        self.every_s = min(MAX_BEAT_S, max(MIN_BEAT_S, limit_s / BEATS_PER_LIMIT))

    # ---- what is heard --------------------------------------------------------------------------

    def on_event(self, at: float, event: Event, state: RunState) -> None:
        del at
        if state.attempt != self._state.attempt:
            self._heard.clear()
            self._reported = False
        self._state = state
        match event:
            case Progressed(done=done, total=total):
                heard = self._hear(event.node, event.rank)
                heard.reports += 1
                heard.done = 0 < total <= done
                self._reported = True
            case Reported():
                self._hear(event.node, event.rank)
                self._reported = True
            case RankExited():
                self._heard.pop((event.node, event.rank), None)
            case _:
                pass

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        del chunk
        rank = _rank_of(file)
        if rank is not None:
            self._hear(node, rank)

    def on_note(self, text: str) -> None:
        del text

    def close(self, result: Result | None) -> None:
        del result

    def _hear(self, node: str, rank: int) -> _Heard:
        heard = self._heard.setdefault((node, rank), _Heard(self._now))
        heard.last, heard.ever = self._now, True
        return heard

    # ---- what follows from it -------------------------------------------------------------------

    async def run(self) -> None:
        """Beat for as long as the run lasts; whoever began it cancels it."""
        self._beaten_at = self._clock.monotonic()
        while self._limit_s is not None:
            await asyncio.sleep(self.every_s)
            self.beat()

    def beat(self) -> None:
        """Look once, about ``every_s`` after the last time."""
        if self._limit_s is not None:
            self._advance(self.every_s * MAX_GAP_BEATS)
            self._judge(self._limit_s)

    def _advance(self, most_s: float) -> None:
        """Move the pulse's clock on by the time that somebody listened."""
        now = self._clock.monotonic()
        elapsed = min(now - self._beaten_at, most_s)
        self._beaten_at = now
        self._now += elapsed
        broken = self._broken()
        for (node, _), heard in self._heard.items():
            if node in broken:
                heard.last += elapsed

    def _judge(self, limit_s: float) -> None:
        if self._state.stall is not None:
            self._forgive()
            return
        found = (
            suspect_hang(list(self._table(limit_s)), self._now, limit_s) if self._armed else None
        )
        if found is None:
            return
        self._forgive()
        self._tell(
            Stalled(
                ranks=found.ranks,
                silent_s=round(found.silent_s, 1),
                limit_s=limit_s,
                at=self._clock.wall(),
            )
        )

    def _forgive(self) -> None:
        """Count anew: a suspicion that is not confirmed must not come again at once."""
        for heard in self._heard.values():
            heard.last = self._now

    @property
    def _armed(self) -> bool:
        """Ranks that report nothing by themselves are judged only if the user asked for it; those
        that wait for leases are looked after by whoever leases.
        """
        state = self._state
        if not state.launching or state.halted or state.plan is None:
            return False
        if state.plan.rung == CommMode.LEASES:
            return False
        asked = state.request.budgets.hang_asked
        return asked or self._reported or any(state.positions.values())

    def _table(self, limit_s: float) -> Iterator[Activity]:
        """Every rank that runs, as far as is known."""
        startup_s = max(0.0, STARTUP_S - limit_s)
        ended = {(e.node, e.rank) for e in self._state.endings if isinstance(e, RankExited)}
        for name, node in self._state.planned():
            if node.lost is not None or node.concluded is not None or node.problem is not None:
                continue
            for rank in node.ranks:
                if (name, rank) not in ended:
                    heard = self._heard.setdefault((name, rank), _Heard(self._now))
                    steady = heard.reports >= STEADY_REPORTS and not heard.done
                    last = heard.last + (0.0 if heard.ever else startup_s)
                    yield Activity(node=name, rank=rank, last=last, steady=steady)


def _rank_of(file: str) -> int | None:
    """``rank-3.out`` -> 3; None for what no rank writes."""
    stem, _, end = file.rpartition(".")
    number = stem.removeprefix("rank-")
    known = stem != number and end in ("out", "err") and number.isascii() and number.isdigit()
    return int(number) if known else None
