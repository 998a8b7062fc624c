"""Workers that are nothing but numbers: leases and ledger as the coordinator uses them."""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from orchestrator.core.sharing.leases import Leases, Worker
from orchestrator.core.sharing.ledger import Acceptance, Ledger, OutputLocation

NOWHERE = OutputLocation(0, 0, 0)


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def worker(number: int) -> Worker:
    return f"n{number}", number


@dataclass(slots=True)
class Busy:
    """A worker's side: what it was told to do, and how long it was busy."""

    queue: deque[int] = field(default_factory=deque)
    busy_s: float = 0.0


class Work:
    """Samples 0 to ``total`` - 1 and whoever works on them."""

    def __init__(self, total: int, group: int, *, exclusive: bool = False) -> None:
        self.ledger = Ledger(total, group)
        self.leases = Leases(self.ledger, exclusive=exclusive)
        self.now = 0.0
        self.workers: dict[Worker, Busy] = {}
        self.counted: dict[int, int] = {}

    def join(self, who: Worker) -> None:
        self.workers.setdefault(who, Busy())
        self.leases.join(who, self.now)

    def hand_out(self) -> None:
        """Leases and recalls, as if they arrived at once."""
        for grant in self.leases.assign(self.now):
            assert grant.groups
            self.workers[grant.worker].queue.extend(grant.groups)
        for grant in self.leases.recalls():
            queue = self.workers[grant.worker].queue if grant.worker in self.workers else deque()
            for group in grant.groups:
                if group in queue and queue[0] != group:
                    queue.remove(group)

    def answer(self, who: Worker | None, sample: int, output: str = "right") -> Acceptance:
        group = self.ledger.group_of(sample)
        before = self.ledger.is_settled(group)
        answer = self.ledger.accept(sample, digest(f"{sample} {output}"), NOWHERE, 1.0)
        self.counted[sample] = self.counted.get(sample, 0) + (answer is Acceptance.ACCEPTED)
        if not before and self.ledger.is_settled(group):
            self.leases.settle(group, who)
        if who is not None:
            self.leases.heard(who, self.now)
        return answer

    def fail_groups(self, groups: Sequence[int]) -> None:
        for group in groups:
            for sample in self.ledger.samples_of(group):
                if self.ledger.fail_groups(sample) and self.ledger.is_settled(group):
                    self.leases.settle(group, None)

    def work(self, who: Worker, seconds: float, most: int | None = None) -> None:
        """Do the first group, or only ``most`` of its samples."""
        busy = self.workers[who]
        if not busy.queue:
            return
        group = busy.queue[0]
        for sample in list(self.ledger.samples_of(group))[:most]:
            self.answer(who, sample)
        if most is None:
            busy.queue.popleft()
            busy.busy_s += seconds
            self.fail_groups(self.leases.worked(who, [group], busy.busy_s, self.now))

    def die(self, who: Worker) -> None:
        del self.workers[who]
        self.fail_groups(self.leases.leave(who))

    def expire(self) -> None:
        self.fail_groups(self.leases.expire(self.now))


class Timed:
    """The same in time: ``paces`` are seconds a sample, every word takes ``latency_s``."""

    def __init__(self, work: Work, paces: Mapping[Worker, float], latency_s: float) -> None:
        self.work = work
        self.ended = 0.0
        self._paces = paces
        self._latency_s = latency_s
        self._clock: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._running: set[Worker] = set()
        for who in paces:
            work.join(who)

    def later(self, after_s: float, what: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._clock, (self.work.now + after_s, self._serial, what))

    def run(self) -> None:
        self._look()
        while not self.work.ledger.settled:
            self.work.now, _, what = heapq.heappop(self._clock)
            assert self.work.now < 1e4, "it never ends"
            what()

    def _look(self) -> None:
        self.later(0.2, self._look)
        self.work.expire()
        self._hand_out()

    def _hand_out(self) -> None:
        self.work.hand_out()
        for who in self.work.workers:
            self.later(self._latency_s, partial(self._begin, who))

    def _begin(self, who: Worker) -> None:
        queue = self.work.workers[who].queue if who in self.work.workers else deque()
        if who not in self._running and queue:
            self._running.add(who)
            self.later(self._takes(who, queue[0]), partial(self._done, who, queue[0]))

    def _takes(self, who: Worker, group: int) -> float:
        return self._paces[who] * len(self.work.ledger.samples_of(group))

    def _done(self, who: Worker, group: int) -> None:
        if who in self.work.workers:
            self._running.discard(who)
            self.work.workers[who].queue.remove(group)
            self.later(self._latency_s, partial(self._told, who, group))
            self._begin(who)

    def _told(self, who: Worker, group: int) -> None:
        if who not in self.work.workers:
            return
        busy = self.work.workers[who]
        busy.busy_s += self._takes(who, group)
        for sample in self.work.ledger.samples_of(group):
            self.work.answer(who, sample)
        self.ended = self.work.now
        self.work.fail_groups(self.work.leases.worked(who, [group], busy.busy_s, self.work.now))
        self._hand_out()


def makespan(
    total: int,
    group: int,
    paces: Mapping[Worker, float],
    *,
    latency_s: float = 0.05,
    kill: tuple[Worker, float] | None = None,
) -> tuple[float, Work]:
    """When all is done. ``kill``: a worker and when it dies."""
    timed = Timed(Work(total, group), paces, latency_s)
    if kill is not None:
        timed.later(kill[1], partial(timed.work.die, kill[0]))
    timed.run()
    return timed.ended, timed.work
