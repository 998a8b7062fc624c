"""What is known of one node of a run, and of all of them together. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.base.problem import Problem
from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.facts import Facts
from orchestrator.core.run.connectivity import Reached
from orchestrator.core.run.events import (
    Collected,
    Halting,
    NodeConcluded,
    Prepared,
    ProcessExited,
    RankExited,
    Swept,
)

Ending = RankExited | ProcessExited


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What is known of one node. ``problem``: why it takes no part; ``lost``: its link is gone.
    ``stale``: an earlier attempt may have left something there. ``endings`` of its processes.
    """

    connected: bool = False
    stale: bool = False
    facts: Facts | None = None
    synced: bool = False
    prepared: Prepared | None = None
    reached: Reached | None = None
    launched: bool = False
    ranks: Mapping[int, int] = field(default_factory=dict)
    endings: tuple[Ending, ...] = ()
    halting: Halting | None = None
    concluded: NodeConcluded | None = None
    collected: Collected | None = None
    swept: Swept | None = None
    problem: Problem | None = None
    lost: Problem | None = None

    @property
    def ready(self) -> bool:
        """Everything that must precede the plan is there."""
        known = self.facts is not None and self.synced and self.prepared is not None
        return known and not self.stale

    @property
    def settled(self) -> bool:
        """Ready, or known to take no part."""
        return (self.connected and self.ready) or self.problem is not None or self.lost is not None

    @property
    def finding(self) -> NodeFinding | None:
        """What the plan needs to know; None until ready."""
        if self.facts is None or self.prepared is None:
            return None
        return NodeFinding(
            facts=self.facts,
            interpreter=self.prepared.interpreter,
            modules=self.prepared.modules,
            environment=self.prepared.environment,
            scheduled=self.prepared.scheduled,
            image=self.prepared.image,
        )


def node_stage(node: NodeState) -> str:
    """A word for how far a node is."""
    if node.swept is not None:
        return "clean" if node.swept.clean else "dirty"
    if node.lost is not None:
        return "lost"
    if node.problem is not None:
        return "failed"
    if node.launched:
        return _stage_after_launch(node)
    if node.prepared is not None and node.synced:
        return "ready"
    if node.synced:
        return "preparing"
    if node.facts is not None:
        return "syncing"
    return "probing" if node.connected else "connecting"


def _stage_after_launch(node: NodeState) -> str:
    if node.collected is not None:
        return "collected"
    if node.concluded is not None:
        return "ended"
    return "running" if node.ranks else "launching"
