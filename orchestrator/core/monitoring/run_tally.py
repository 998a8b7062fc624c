"""What monitoring knows of a run: its journal, counted event by event. Pure.

The state machine knows all of this, too, but each of its steps costs as much as the run has nodes;
a scrape has to follow many runs of 1,000 nodes. Counted in place, as large ledgers are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from orchestrator.core.base.figures import sum_of_all
from orchestrator.core.base.outcome import has_succeeded
from orchestrator.core.monitoring.node_figures import NodeFigure, figures_of_facts
from orchestrator.core.run.connectivity import Classified, FabricProbed, Fault, LinksBroken
from orchestrator.core.run.connectivity import LinksProbed as Probe
from orchestrator.core.run.events import (
    Connected,
    Divided,
    Failed,
    Launched,
    NodeConcluded,
    NodeLost,
    Phase,
    Probed,
    RankExited,
    RankStarted,
    RoundClosed,
)
from orchestrator.core.run.evidence import Stalled
from orchestrator.core.run.kit_reports import EnergyReported

NodeCounted = Connected | Probed | Launched | RankStarted | RankExited | NodeConcluded | NodeLost
Counted = (
    NodeCounted
    | Failed
    | EnergyReported
    | Divided
    | RoundClosed
    | FabricProbed
    | Probe
    | LinksBroken
    | Classified
    | Stalled
)


class NodeTally:
    """One node. ``state``: waiting, running, ended, failed or lost; ``ranks``: the state of each
    rank of the present attempt; ``figures``: of its last probe, which is too large to be kept.
    """

    __slots__ = ("energy", "figures", "launches", "ranks", "state")

    def __init__(self) -> None:
        self.state = "waiting"
        self.launches = 0
        self.figures: tuple[NodeFigure, ...] = ()
        self.ranks: dict[int, str] = {}
        self.energy: dict[tuple[int, int], float] = {}

    @property
    def joules(self) -> float | None:
        """What the node's measured windows add up to; None where none was reported."""
        return sum(self.energy.values()) if self.energy else None

    @property
    def running(self) -> int:
        """How many ranks run."""
        return sum(state == "running" for state in self.ranks.values())

    def add(self, event: NodeCounted) -> None:
        """Count what happened to the node."""
        match event:
            case Connected():
                self.state = "waiting" if self.state in {"failed", "lost"} else self.state
            case Probed(facts=facts):
                self.figures = tuple(figures_of_facts(facts))
            case Launched():
                self.launches += 1
                self.state, self.ranks = "running", {}
            case RankStarted(rank=rank):
                self.ranks[rank] = "running"
            case RankExited(rank=rank, outcome=outcome, by_us=by_us):
                ended = "succeeded" if has_succeeded(outcome) else "failed"
                self.ranks[rank] = "stopped" if by_us else ended
            case NodeConcluded():
                self.state = "ended" if self.state == "running" else self.state
            case NodeLost():
                self.state = "lost"

    def add_energy(self, report: EnergyReported) -> None:
        """A later report of a window replaces the earlier one."""
        joules = sum_of_all([gpu.joules for gpu in report.gpus])
        if report.asked and joules is not None:
            self.energy[report.rank, report.window] = joules


class RunTally:
    """A run. ``links``: pairs of nodes found broken, in either direction; ``fallen``: how often a
    communication mode failed; ``fabric``: the last probe that was all right; ``divided``: the last
    standing.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, NodeTally] = {}
        self.links: set[tuple[str, str]] = set()
        self.fallen = 0
        self.fabric: FabricProbed | None = None
        self.divided: Divided | None = None
        self.rounds: dict[int, int] = {}  # number -> bytes that travelled
        self.stalled = False

    @property
    def retries(self) -> int:
        """Attempts after the first one that were launched."""
        return max((node.launches - 1 for node in self.nodes.values()), default=0)

    @property
    def joules(self) -> float | None:
        """What all measured windows add up to; None where none was reported."""
        known = [node.joules for node in self.nodes.values() if node.joules is not None]
        return sum(known) if known else None

    def rank_states(self) -> Counter[str]:
        """How many ranks are in each state."""
        return Counter(state for node in self.nodes.values() for state in node.ranks.values())

    def node_states(self) -> Counter[str]:
        """How many nodes are in each state."""
        return Counter(node.state for node in self.nodes.values())

    def broken_nodes(self) -> Iterator[str]:
        """Nodes that are lost or have failed."""
        return (name for name, node in self.nodes.items() if node.state in {"failed", "lost"})

    def add(self, event: Counted) -> None:
        """Count what happened next."""
        match event:
            case Divided():
                self.divided = event
            case RoundClosed(round=number, bytes=size):
                self.rounds[number] = size
            case Stalled():
                self.stalled = True
            case EnergyReported(node=node):
                self._node(node).add_energy(event)
            case Failed(node=node, phase=phase):
                # Outputs that did not come are no fault of the node's health; "" is the run itself.
                if node and phase is not Phase.COLLECT:
                    self._node(node).state = "failed"
            case FabricProbed() | Probe() | LinksBroken() | Classified():
                self._add_links(event)
            case _:
                if isinstance(event, Launched):
                    self.stalled = False
                self._node(event.node).add(event)

    def _add_links(self, event: FabricProbed | Probe | LinksBroken | Classified) -> None:
        if not isinstance(event, FabricProbed) or not event.ok:
            self.links.update((min(pair), max(pair)) for pair in event.links)
        match event:
            case FabricProbed(ok=True):
                self.fabric = event
            case FabricProbed() | Classified(fault=Fault.FABRIC):
                self.fallen += 1
            case Probe(reason=reason) if reason:
                self.fallen += 1
            case _:
                pass

    def _node(self, name: str) -> NodeTally:
        return self.nodes.setdefault(name, NodeTally())
