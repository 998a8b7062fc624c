"""What is known of a run: the sum of its events. Only :mod:`orchestrator.core.machine` makes
these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.core.checks import Finding
from orchestrator.core.events import (
    Collected,
    DeadlinePassed,
    NodeConcluded,
    Phase,
    Prepared,
    Problem,
    ProcessExited,
    RankExited,
    Reached,
    StopRequested,
    Swept,
)
from orchestrator.core.facts import Facts
from orchestrator.core.outcome import succeeded
from orchestrator.core.plan import Plan
from orchestrator.core.planning import Refusal
from orchestrator.core.request import RunRequest

Ending = RankExited | ProcessExited


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What is known of one node. ``problem``: why it takes no part; ``lost``: its link is gone."""

    connected: bool = False
    facts: Facts | None = None
    synced: bool = False
    prepared: Prepared | None = None
    reached: Reached | None = None
    launched: bool = False
    ranks: Mapping[int, int] = field(default_factory=dict)
    concluded: NodeConcluded | None = None
    collected: Collected | None = None
    swept: Swept | None = None
    problem: Problem | None = None
    lost: Problem | None = None

    @property
    def ready(self) -> bool:
        """Everything that must precede the plan is there."""
        return self.facts is not None and self.synced and self.prepared is not None

    @property
    def settled(self) -> bool:
        """Ready, or known to take no part."""
        return self.ready or self.problem is not None or self.lost is not None

    @property
    def finding(self) -> Finding | None:
        """What the plan needs to know; None until ready."""
        if self.facts is None or self.prepared is None:
            return None
        return Finding(
            facts=self.facts,
            interpreter=self.prepared.interpreter,
            modules=self.prepared.modules,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A metric's final value as a rank reported it; of several ranks the lowest one counts."""

    rank: int
    value: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """The whole run. ``issued`` holds the identities of all actions that were ever issued."""

    request: RunRequest
    begun: bool = False
    nodes: Mapping[str, NodeState]
    plan: Plan | None = None
    refusal: Refusal | None = None
    port: int | None = None
    endings: tuple[Ending, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    problems: tuple[tuple[str, Phase, Problem], ...] = ()
    stop: StopRequested | None = None
    overdue: DeadlinePassed | None = None
    issued: frozenset[str] = frozenset()

    @property
    def failures(self) -> tuple[Ending, ...]:
        """Endings that are failures of their own, not our doing, in the order they happened."""
        own = [e for e in self.endings if not e.by_us and not succeeded(e.outcome)]
        return tuple(sorted(own, key=lambda ending: ending.at))

    @property
    def launching(self) -> bool:
        """Whether a launch was ever issued: from then on nodes must be stopped and swept."""
        return any(identity.startswith("Launch/") for identity in self.issued)

    @property
    def halted(self) -> bool:
        """Whether the run is to end now rather than when its ranks are done."""
        return bool(self.stop or self.refusal or self.overdue or self.failures or self.broken)

    @property
    def broken(self) -> bool:
        """Whether a node that was launched, or was about to be, is lost or refuses to go on."""
        phases = (Phase.LAUNCH, Phase.WATCH, Phase.STOP)
        return any(phase in phases for _, phase, _ in self.problems) or any(
            node.lost is not None for _, node in self.planned()
        )

    def planned(self) -> Iterator[tuple[str, NodeState]]:
        """The nodes that the plan uses, in rank order."""
        for share in self.plan.nodes if self.plan else ():
            yield share.name, self.nodes[share.name]


def new_state(request: RunRequest) -> RunState:
    """Before the first event."""
    nodes = {spec.name: NodeState() for spec in request.cluster.workers}
    return RunState(request=request, nodes=nodes)
