"""Who works on which groups of samples: leases that let unequal workers finish together. Pure.

Every worker's pace is estimated from the time that it was busy itself. From the paces and from
what everybody still holds follows when all could be done, and how many groups each can do until
then; a worker gets half of that at a time (factoring), so that an estimate that was wrong can still
be made up for, and the next lease before the last one is used up. At the tail a group goes to
whoever ends it first. Whoever has nothing to do then takes over what a slower worker has not begun,
or works beside one that takes much longer than it should.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core.sharing.ledger import Ledger

# A worker is given more when it has less than this to do, or nothing beyond what it works on: long
# enough for the way there and back.
LEAD_S = 0.5
# A coordinator that looks seldom, since others keep its processor busy, leads by more: by so many
# times the longest pause between two looks, of which a worker waits one. A pause is forgotten
# with time.
LEAD_PAUSES, MAX_LEAD_S, FORGET_S = 2.0, 5.0, 10.0
# A long lease outlasts a link that is cut. What is never taken back, since no two may have it, is
# leased for a shorter time: a pace may change until it is done.
LEASE_S, EXCLUSIVE_LEASE_S = 20.0, 1.0
MAX_LEASE_GROUPS = 512
# How strongly the latest group counts in the estimate of a pace.
LATEST = 0.3
# Silent for so many times what its group should take, and at least for so long: the groups of a
# worker go to others. The first group may include compiling and loading.
LATE_TIMES, LATE_S = 5.0, 10.0
FIRST_LATE_TIMES, FIRST_LATE_S = 10.0, 60.0
# Working on the same group as another worker must gain this much.
BESIDE_TIMES, BESIDE_S = 1.5, 0.2
# A group that was taken back so often has ended or stopped its workers: it is given up.
MAX_RETURNS = 5
# With fewer groups than this for each worker, none is given ahead before its pace is known.
PLENTY = 4
STEPS = 40
ROUNDING = 1e-9

Worker = tuple[str, int]


@dataclass(frozen=True, slots=True)
class LeaseGrant:
    """Groups for one worker, in the order in which it is to work."""

    worker: Worker
    groups: tuple[int, ...]


class WorkerState:
    """What is known of one worker. ``held``: its groups in order, the first one is being worked on.

    ``pace`` in seconds a sample; ``supposed``: before any was done. ``since``: when it began with
    its first group; ``alive``: when it was last heard of.
    """

    __slots__ = ("alive", "busy_s", "held", "late", "pace", "since", "supposed", "worker")

    def __init__(self, worker: Worker, now: float) -> None:
        self.worker = worker
        self.since = self.alive = now
        self.held: dict[int, None] = {}
        self.pace: float | None = None
        self.supposed: float | None = None
        self.busy_s = 0.0
        self.late = False

    @property
    def first(self) -> int | None:
        return next(iter(self.held), None)

    def drop(self, group: int) -> bool:
        """Whether it had the group."""
        had = group in self.held
        self.held.pop(group, None)
        return had


class Leases:
    """The groups of a ledger between those who work on them. ``now`` is any monotonic clock.

    ``exclusive``: a group is given to another worker only when the one that has it is gone or late.
    """

    def __init__(self, ledger: Ledger, *, exclusive: bool = False) -> None:
        self._ledger = ledger
        self._exclusive = exclusive
        self._seats: dict[Worker, WorkerState] = {}
        self._fresh = 0
        self._back: deque[int] = deque()
        self._returns: dict[int, int] = {}
        self._holders: dict[int, list[WorkerState]] = {}  # of groups that are not settled
        self._open = ledger.groups
        self._recalls: list[tuple[Worker, int]] = []
        self._looked: float | None = None
        self._pause_s = 0.0

    # ---- what happens ---------------------------------------------------------------------------

    @property
    def unassigned(self) -> int:
        """Groups that are not settled and that nobody works on."""
        return self._open - len(self._holders)

    @property
    def assigned(self) -> int:
        """Groups that are not settled and that a worker has a lease of."""
        return len(self._holders)

    def holds(self, worker: Worker) -> bool:
        """Whether it has something to do."""
        seat = self._seats.get(worker)
        return seat is not None and bool(seat.held)

    def extend(self, groups: int) -> None:
        """The ledger has so many more groups."""
        self._open += groups

    def join(self, worker: Worker, now: float, per_s: float = 0.0) -> None:
        """A worker is ready for its first lease, whenever that is. ``per_s``: the samples that it
        did per second to warm up; 0 = unknown.
        """
        seat = self._seats.setdefault(worker, WorkerState(worker, now))
        if seat.pace is None and per_s > 0:
            seat.supposed = 1 / per_s

    def leave(self, worker: Worker) -> list[int]:
        """A worker is gone: what it held goes to others. The groups that are given up."""
        seat = self._seats.pop(worker, None)
        return self._take_back(seat, seat.held) if seat is not None and not seat.late else []

    def give_back(self, worker: Worker, groups: Iterable[int]) -> list[int]:
        """A lease did not arrive. The groups that are given up."""
        seat = self._seats.get(worker)
        if seat is None:
            return []
        lost = [group for group in groups if seat.drop(group)]
        return [] if seat.late else self._take_back(seat, lost)

    def took(self, worker: Worker, groups: Iterable[int], now: float) -> None:
        """A worker has groups from a coordinator before this one."""
        seat = self._seats.get(worker)
        for group in groups if seat is not None else ():
            if seat is not None and not self._ledger.is_settled(group) and group not in seat.held:
                self._hold(seat, group, now)

    def heard(self, worker: Worker, now: float) -> None:
        """A sign of life; one that was late holds again what nobody has taken over."""
        seat = self._seats.get(worker)
        if seat is None:
            return
        seat.alive = now
        if not seat.late:
            return
        seat.late = False
        for group in list(seat.held):
            taken = self._ledger.is_settled(group) or group in self._holders
            if not taken:
                self._holders[group] = [seat]
            elif group != seat.first:
                self._recall(seat, group)

    def worked(self, worker: Worker, groups: Iterable[int], busy_s: float, now: float) -> list[int]:
        """A worker says that all samples of ``groups`` are answered, and that it was busy for
        ``busy_s`` in all. The groups that are given up: it was not so.
        """
        seat = self._seats.get(worker)
        if seat is None:
            return []
        self.heard(worker, now)
        done = list(groups)
        samples = sum(len(self._ledger.samples_of(group)) for group in done)
        if samples and busy_s > seat.busy_s:
            pace = (busy_s - seat.busy_s) / samples
            old = pace if seat.pace is None else seat.pace
            seat.pace = old + LATEST * (pace - old)
        seat.busy_s = max(seat.busy_s, busy_s)
        seat.since = now
        return self._take_back(seat, [group for group in done if seat.drop(group)])

    def settle(self, group: int, by: Worker | None) -> None:
        """Every sample of ``group`` is answered or given up: nobody else needs to begin it."""
        self._open -= 1
        for seat in self._holders.pop(group, []):
            if seat.worker != by and group != seat.first:
                self._recall(seat, group)

    def expire(self, now: float) -> list[int]:
        """Take back what workers hold who are silent for too long. The groups given up."""
        given_up: list[int] = []
        typical = self._typical()
        for seat in self._seats.values():
            if seat.held and not seat.late and now - seat.alive > self._patience(seat, typical):
                given_up += self._take_back(seat, seat.held)
                seat.late = True
        return given_up

    def recalls(self) -> list[LeaseGrant]:
        """Groups that their workers need not begin any more; each is told once."""
        gone: dict[Worker, list[int]] = {}
        for worker, group in self._recalls:
            gone.setdefault(worker, []).append(group)
        self._recalls.clear()
        return [LeaseGrant(worker, tuple(groups)) for worker, groups in gone.items()]

    # ---- who gets what --------------------------------------------------------------------------

    def assign(self, now: float) -> list[LeaseGrant]:
        """Leases for everybody who needs one now."""
        lead = self._lead(now)
        typical = self._typical()
        able = [seat for seat in self._seats.values() if not seat.late]
        loads = {seat.worker: self._load(seat, typical, now) for seat in able}
        hungry = [seat for seat in able if len(seat.held) < 2 or loads[seat.worker][0] < lead]
        hungry.sort(key=lambda seat: loads[seat.worker][0])
        grants = list(self._lease(hungry, loads, lead, now)) if self.unassigned else []
        if not self.unassigned and not self._exclusive:
            idle = [seat for seat in hungry if not seat.held]
            grants += self._beside(idle, loads, now)
        return grants

    def _lease(
        self,
        hungry: Sequence[WorkerState],
        loads: dict[Worker, tuple[float, float]],
        lead: float,
        now: float,
    ) -> Iterator[LeaseGrant]:
        known = [(backlog, each) for backlog, each in loads.values() if each]
        end = _finish_time(known, self.unassigned) if hungry else 0.0
        plenty = self.unassigned >= PLENTY * len(loads)
        longest = max(lead, EXCLUSIVE_LEASE_S if self._exclusive else LEASE_S)
        for seat in hungry:
            backlog, each = loads[seat.worker]
            if seat.pace is None:
                wanted = _first_lease(seat, self._ledger.group, lead, plenty) - len(seat.held)
            else:
                most = max(1, int((longest - backlog) / each))
                wanted = min(most, _groups_to_lease(end, backlog, each, lead))
            groups = list(self._pop(wanted))
            for group in groups:
                self._hold(seat, group, now)
            if groups:
                yield LeaseGrant(seat.worker, tuple(groups))

    def _beside(
        self, idle: Sequence[WorkerState], loads: dict[Worker, tuple[float, float]], now: float
    ) -> Iterator[LeaseGrant]:
        """Nothing is left to lease: take over what slower workers would end last."""
        if not idle:
            return
        busy = [seat for seat in self._seats.values() if seat.held and seat.worker in loads]
        busy.sort(key=lambda seat: loads[seat.worker][0], reverse=True)
        slow = iter(busy)
        for seat in idle:
            each = loads[seat.worker][1]
            other = next((s for s in slow if self._gains(each, s, loads[s.worker][0])), None)
            if other is None or not each:
                return
            group = next(reversed(other.held))
            if group != other.first:
                self._release(other, [group])
                self._recall(other, group)
            self._hold(seat, group, now)
            yield LeaseGrant(seat.worker, (group,))

    def _gains(self, each: float, other: WorkerState, backlog: float) -> bool:
        last = next(reversed(other.held))
        alone = len(self._holders.get(last, ())) == 1
        return alone and backlog > BESIDE_TIMES * each + BESIDE_S

    def _load(self, seat: WorkerState, typical: float, now: float) -> tuple[float, float]:
        """(seconds until it has done what it holds, seconds that it takes for a group)."""
        each = self._ledger.group * (typical if seat.pace is None else seat.pace)
        if not seat.held:
            return 0.0, each
        # One that is late by so much already may well be late by as much again.
        rest = abs(each - (now - seat.since))
        return (len(seat.held) - 1) * each + rest, each

    def _lead(self, now: float) -> float:
        """Work for how many seconds each is to have ahead."""
        if self._looked is not None:
            pause = max(0.0, now - self._looked)
            self._pause_s = max(pause, self._pause_s * math.exp(-pause / FORGET_S))
        self._looked = now
        return min(MAX_LEAD_S, max(LEAD_S, LEAD_PAUSES * self._pause_s))

    def _typical(self) -> float:
        """The pace of a worker of which nothing is known; 0 if there is no other either."""
        paces = [seat.pace for seat in self._seats.values() if seat.pace is not None]
        return sum(paces) / len(paces) if paces else 0.0

    def _patience(self, seat: WorkerState, typical: float) -> float:
        if seat.pace is not None:
            return max(LATE_S, LATE_TIMES * seat.pace * self._ledger.group)
        if not typical:
            return math.inf
        return max(FIRST_LATE_S, FIRST_LATE_TIMES * typical * self._ledger.group)

    # ---- the groups -----------------------------------------------------------------------------

    def _pop(self, count: int) -> Iterator[int]:
        """Up to ``count`` groups that nobody works on; those that came back are first."""
        while count > 0 and self.unassigned:
            if self._back:
                group = self._back.popleft()
            elif self._fresh < self._ledger.groups:
                group, self._fresh = self._fresh, self._fresh + 1
            else:
                return
            if not self._ledger.is_settled(group) and group not in self._holders:
                count -= 1
                yield group

    def _hold(self, seat: WorkerState, group: int, now: float) -> None:
        if not seat.held:
            seat.since = seat.alive = now
        seat.held[group] = None
        self._holders.setdefault(group, []).append(seat)

    def _release(self, seat: WorkerState, groups: Iterable[int]) -> list[int]:
        """The groups that nobody holds any more."""
        free: list[int] = []
        for group in groups:
            holders = self._holders.get(group, [])
            if seat in holders:
                holders.remove(seat)
                if not holders:
                    del self._holders[group]
                    free.append(group)
        return free

    def _take_back(self, seat: WorkerState, groups: Iterable[int]) -> list[int]:
        given_up: list[int] = []
        for group in self._release(seat, list(groups)):
            self._returns[group] = self._returns.get(group, 0) + 1
            if self._returns[group] >= MAX_RETURNS:
                given_up.append(group)
            self._back.append(group)
        return given_up

    def _recall(self, seat: WorkerState, group: int) -> None:
        if seat.drop(group):
            self._recalls.append((seat.worker, group))


def _finish_time(loads: Sequence[tuple[float, float]], groups: int) -> float:
    """When ``groups`` more could be done, if each goes to whoever ends it first."""
    if not loads:
        return 0.0
    low, high = 0.0, min(backlog + groups * each for backlog, each in loads)
    shortest = min(each for _, each in loads)
    for _ in range(STEPS):
        if high - low < shortest / 100:
            break
        middle = (low + high) / 2
        done = sum(max(0, int((middle - backlog) / each)) for backlog, each in loads)
        low, high = (low, middle) if done >= groups else (middle, high)
    return high


def _first_lease(seat: WorkerState, group: int, lead: float, plenty: bool) -> int:
    """How many groups for one whose pace is not known yet."""
    if not plenty:
        return 1
    supposed = lead / (seat.supposed * group) if seat.supposed else 0.0
    return min(max(2, math.ceil(supposed)), MAX_LEASE_GROUPS)


def _groups_to_lease(end: float, backlog: float, each: float, lead: float) -> int:
    """How many groups of ``each`` seconds to lease now to one who can go on until ``end``, and
    needs work for ``lead`` seconds.
    """
    most = int((end - backlog) / each + ROUNDING)
    if most <= 0:
        return 0
    half = max(math.ceil(most / 2), min(most, math.ceil(lead / each)))
    return min(half, MAX_LEASE_GROUPS)
