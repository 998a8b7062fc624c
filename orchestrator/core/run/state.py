"""What is known of a run: the sum of its events. Only ``core.run.machine`` makes
these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, NamedTuple

from orchestrator.core.base.outcome import Signalled, has_succeeded
from orchestrator.core.base.persistent_map import PersistentMap
from orchestrator.core.base.problem import Problem
from orchestrator.core.model.comm_modes import Fallback
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.planning.planning import Refusal
from orchestrator.core.run.connectivity import (
    Classified,
    FabricProbed,
    LinksBroken,
    LinksProbed,
)
from orchestrator.core.run.events import (
    DeadlinePassed,
    Divided,
    Halting,
    Occupied,
    Phase,
    RankExited,
    RoundClosed,
    StopRequested,
)
from orchestrator.core.run.evidence import Inspection, Stalled
from orchestrator.core.run.hang import Blame
from orchestrator.core.run.kit_reports import EnergyReported
from orchestrator.core.run.node_state import Ending, NodeState
from orchestrator.core.run.node_table import NodeTable

# Why a node's supervisor ended: its lease ran out; or there was none, for we were too early.
LEASE = "lease"
NEVER_LAUNCHED = "never launched"
FIRST_EPOCH = 2
EPOCH_STEP = 2  # the odd ones between are for sweeps, which fence off what they follow
# Clocks of nodes are compared by one round trip each: their order is known to about this.
CLOCK_ERROR_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A metric's final value as a rank reported it; of several ranks the lowest one counts."""

    rank: int
    value: float
    unit: str


class Terms(NamedTuple):
    """What the actions on a node follow from besides what is known of that node."""

    begun: bool
    launching: bool
    halted: bool
    plan: Plan | None
    reserved: bool
    port: int | None
    offers: int
    fabric: FabricProbed | None
    stop: StopRequested | None
    stall: Stalled | None
    stalls: int
    hang: Blame | None
    problems: tuple[tuple[str, Phase, Problem], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """The whole run, of which all but the request belongs to the present attempt.

    ``epoch`` is even and grows with every coordinator and every attempt; nodes refuse what comes
    from an older one. ``issued`` holds the identities of the actions that this coordinator issued.
    ``resumed``: it took the attempt over from another one. ``successor``: the changed request that
    another attempt would follow. ``positions`` maps (node, rank) to how far the rank's report file
    was read, in bytes. ``stall`` is a suspicion that is being looked into, number ``stalls``, and
    ``inspections`` what was found so far; ``hang`` = it was confirmed. ``falls`` are the rungs of
    the ladder that did not hold, in this attempt and before; ``mesh`` = who reached whom where the
    head was not reached by all; ``fabric`` = the present rung was proven. ``lapses`` are the leases
    that ran out, and ``failed`` those of the ``endings`` that are no success and not our doing.
    Under ``terms``, every action that the nodes call for is issued; None = not yet looked at.
    """

    request: RunRequest
    begun: bool = False
    attempt: int = 1
    epoch: int = FIRST_EPOCH
    resumed: bool = False
    successor: RunRequest | None = None
    nodes: NodeTable
    plan: Plan | None = None
    refusal: Refusal | None = None
    reserved: bool = False
    occupied: Occupied | None = None
    port: int | None = None
    offers: int = 0
    falls: tuple[Fallback, ...] = ()
    mesh: LinksProbed | None = None
    fabric: FabricProbed | None = None
    links: LinksBroken | None = None
    classified: Classified | None = None
    divided: Divided | None = None
    rounds: tuple[RoundClosed, ...] = ()
    launching: bool = False
    endings: tuple[Ending, ...] = ()
    failed: tuple[Ending, ...] = ()
    lapses: tuple[Halting, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    energy: PersistentMap[tuple[str, int, int], EnergyReported] = field(
        default_factory=PersistentMap
    )
    positions: PersistentMap[tuple[str, int], int] = field(default_factory=PersistentMap)
    problems: tuple[tuple[str, Phase, Problem], ...] = ()
    stop: StopRequested | None = None
    overdue: DeadlinePassed | None = None
    stall: Stalled | None = None
    stalls: int = 0
    inspections: Mapping[str, Inspection] = field(default_factory=dict)
    hang: Blame | None = None
    issued: PersistentMap[str, None] = field(default_factory=PersistentMap)
    terms: Terms | None = None

    @property
    def failures(self) -> tuple[Ending, ...]:
        """Endings that are failures of their own, not our doing, in the order they happened.

        Once a lease ran out on one node, or a hang was ended, ranks elsewhere fail because theirs
        were stopped there.
        """
        ours = min(self.lapsed_at, self.hung_at, self.cut_at)
        own = (ending for ending in self.failed if ending.at < ours)
        return tuple(sorted(own, key=lambda ending: ending.at))

    @property
    def hung_at(self) -> float:
        """When the hang was noticed that ends the run, less what clocks may differ by."""
        hung = self.hang is not None and self.stall is not None
        return self.stall.at - CLOCK_ERROR_S if hung and self.stall else math.inf

    @property
    def cut_at(self) -> float:
        """When links were found to be broken: what ends badly after that does so because of us."""
        return math.inf if self.links is None else self.links.at

    @property
    def lapsed_at(self) -> float:
        """When the first lease ran out, less what clocks may differ by; infinite if none did."""
        return min((lapse.at for lapse in self.lapses), default=math.inf) - CLOCK_ERROR_S

    @property
    def lapsed(self) -> bool:
        """Whether ranks were stopped for want of a coordinator before they were done."""
        return math.isfinite(self.lapsed_at) and not self.done

    @property
    def done(self) -> bool:
        """Whether every rank came to its own good end."""
        well = {e.rank for e in self.endings if isinstance(e, RankExited) and ended_well(e)}
        return self.plan is not None and all(well.issuperset(n.ranks) for n in self.plan.nodes)

    @property
    def halted(self) -> bool:
        """Whether the run is to end now rather than when its ranks are done.

        Nodes that do not need each other go on when one of them fails, until all work is settled.
        """
        if self.stop or self.refusal or self.occupied or self.overdue or self.lapsed:
            return True
        if self.plan is not None and self.plan.apart:
            return self.unserved or (self.divided is not None and self.divided.final)
        return bool(self.failures or self.broken or self.hang or self.links)

    @property
    def unserved(self) -> bool:
        """Whether what feeds the ranks over SSH came to its own end."""
        return any(not node and phase is Phase.WATCH for node, phase, _ in self.problems)

    @property
    def broken(self) -> bool:
        """Whether a node that was launched, or was about to be, is lost or refuses to go on."""
        phases = (Phase.LAUNCH, Phase.WATCH, Phase.STOP)
        if any(phase in phases for _, phase, _ in self.problems):
            return True
        return self.plan is not None and self.nodes.tally_of(self.plan).lost > 0

    def require_plan(self) -> Plan:
        """The plan, for what is done only once there is one."""
        assert self.plan is not None, "nothing is planned yet"
        return self.plan

    def planned(self) -> Iterator[tuple[str, NodeState]]:
        """The nodes that the plan uses, in rank order."""
        for share in self.plan.nodes if self.plan else ():
            yield share.name, self.nodes[share.name]

    def planned_facts(self) -> dict[str, Facts]:
        """What is known of those nodes."""
        return {name: node.facts for name, node in self.planned() if node.facts is not None}


def ended_well(ending: RankExited) -> bool:
    """Whether the rank came to its own good end."""
    return has_succeeded(ending.outcome) and not ending.by_us


def terms_of(state: RunState) -> Terms:
    """The present terms."""
    return Terms(
        begun=state.begun,
        launching=state.launching,
        halted=state.halted,
        plan=state.plan,
        reserved=state.reserved,
        port=state.port,
        offers=state.offers,
        fabric=state.fabric,
        stop=state.stop,
        stall=state.stall,
        stalls=state.stalls,
        hang=state.hang,
        problems=state.problems,
    )


def revised(state: RunState, **changes: Any) -> RunState:
    """``dataclasses.replace`` in a third of its time, for what every event does: that one passes
    all of some forty fields through the constructor.
    """
    values = list(_READ(state))
    for name, value in changes.items():
        values[_PLACES[name]] = value
    copy = object.__new__(RunState)
    for write, value in zip(_WRITERS, values, strict=True):
        write(copy, value)
    return copy


_PLACES = {field.name: place for place, field in enumerate(fields(RunState))}
_READ = attrgetter(*_PLACES)
_WRITERS = [getattr(RunState, name).__set__ for name in _PLACES]


def new_state(request: RunRequest) -> RunState:
    """Before the first event."""
    nodes = {spec.name: NodeState() for spec in request.cluster.workers}
    return RunState(request=request, nodes=NodeTable(nodes))


def next_attempt(state: RunState, epoch: int, falls: tuple[Fallback, ...] = ()) -> RunState:
    """The beginning of another attempt: nothing of the last one counts but where it may have left
    something. ``falls`` are the rungs of the ladder that are not tried again.
    """
    fresh = new_state(state.successor or state.request)
    unsure = {name for name, node in state.planned() if not _is_clean(node)}
    unsure |= {name for name, node in state.nodes.items() if node.stale}
    nodes = NodeTable({name: NodeState(stale=name in unsure) for name in fresh.nodes})
    number = state.attempt + 1
    return replace(fresh, begun=True, attempt=number, epoch=epoch, nodes=nodes, falls=falls)


def _is_clean(node: NodeState) -> bool:
    swept = node.swept
    return swept is not None and swept.clean and swept.gpu_drained is not False


def kernel_may_know(state: RunState) -> bool:
    """Whether kernels are worth asking: after a signal, a hang, or on GPUs. A program that gives up
    by itself says why; what the kernel says of other people's processes would only mislead.
    """
    signalled = any(isinstance(ending.outcome, Signalled) for ending in state.failures)
    gpus = state.plan is not None and any(share.gpus for share in state.plan.nodes)
    return bool(signalled or state.hang or state.links or (state.failures and gpus))
