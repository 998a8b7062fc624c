"""A simulated node: its boots, clocks, processes, locks and disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.simulation.disk import Disk
from tests.simulation.supervisor import Process, Supervisor

if TYPE_CHECKING:
    from tests.simulation.dispatcher import Dispatcher
    from tests.simulation.world import FakeWorld

Owner = object


@dataclass(frozen=True, slots=True)
class Hold:
    """A lock in somebody's hands. The owner is an agent or a supervisor; it dies with them."""

    name: str
    shared: bool
    owner: Owner
    run: str
    node: str
    about: dict[str, Any]


class Locks:
    """The machine's lock files: exclusive or shared, held by processes."""

    def __init__(self) -> None:
        self.holds: list[Hold] = []

    def conflict(self, name: str, shared: bool) -> Hold | None:
        """Who stands in the way."""
        others = (h for h in self.holds if h.name == name and not (shared and h.shared))
        return next(others, None)

    def of(self, run: str, node: str) -> list[Hold]:
        return [h for h in self.holds if (h.run, h.node) == (run, node)]

    def take(self, hold: Hold) -> None:
        other = self.conflict(hold.name, hold.shared)
        assert other is None or (other.run, other.node) == (hold.run, hold.node), "held twice"
        self.holds.append(hold)

    def release(self, owner: Owner, run: str | None = None, node: str | None = None) -> bool:
        """Whether there was anything to let go of."""
        left = [
            h
            for h in self.holds
            if h.owner is not owner or (run is not None and (h.run, h.node) != (run, node))
        ]
        released = len(left) < len(self.holds)
        self.holds = left
        return released

    def hand_over(self, giver: Owner, taker: Owner, run: str, node: str) -> None:
        mine = [h for h in self.holds if h.owner is giver and (h.run, h.node) == (run, node)]
        self.release(giver, run, node)
        for h in mine:
            self.take(Hold(h.name, h.shared, taker, h.run, h.node, h.about))


class FakeNode:
    """``offset_s``: its wall clock minus true time. ``rate``: its monotonic clock's speed.

    ``slow`` stretches everything that it does.
    """

    def __init__(self, world: FakeWorld, name: str, *, number: int = 1, gpus: int = 0) -> None:
        self.world = world
        self.name = name
        self._number = number
        self.gpus = gpus
        self.boots = 1
        self.up = True
        self.sshd = True
        self.offset_s = 0.0
        self.rate = 1.0
        self.slow = 1.0
        self.disk = Disk()
        self.locks = Locks()
        self.processes: list[Process] = []
        self.agents: list[Dispatcher] = []
        self.launches: Counter[tuple[str, int]] = Counter()
        self._pids = 100

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot-{self.boots}"

    @property
    def address(self) -> str:
        return f"10.{self._number >> 16}.{self._number >> 8 & 255}.{self._number & 255}"

    def wall(self) -> float:
        return self.world.true_wall() + self.offset_s

    def mono(self) -> float:
        return self.world.now * self.rate

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    def marked(self, run: str, share: str) -> list[Process]:
        """Living processes of a run's share."""
        return [p for p in self.processes if (p.run, p.share) == (run, share)]

    def supervisors(self, run: str | None = None) -> list[Supervisor]:
        found = [p for p in self.processes if isinstance(p, Supervisor)]
        return [s for s in found if run is None or s.run == run]

    # ---- what can happen to it -------------------------------------------------------------------

    def crash(self) -> None:
        """The power goes: no FIN, no TERM."""
        self.up = False
        for agent in list(self.agents):
            agent.die(silently=True)
        for process in list(self.processes):
            process.kill()
        self.locks = Locks()
        self.world.links[self.name].vanish()

    def boot(self) -> None:
        """It is back, with another boot id; what it had on disk is there."""
        self.boots += 1
        self.up = True
