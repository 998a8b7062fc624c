"""All nodes of a run, and how many of them are in each condition. Pure.

What the run may do next depends on questions such as "is every node ready". They are asked after
every event, so that the answers are counted on and not sought anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import add, sub
from typing import NamedTuple

from orchestrator.core.base.persistent_map import Parts, PersistentMap
from orchestrator.core.model.plan import NodePlan, Plan
from orchestrator.core.run.node_state import NodeState


class Tally(NamedTuple):
    """How many nodes are in each. ``connecting``, ``probing``, ``syncing``: not settled, and not
    even that. ``out``: with a problem, or lost.
    ``running`` and what follows are of nodes whose link is not lost. ``uncollected``: neither
    outputs nor a sweep or a problem. ``unreached``: did not tell what it reached of the head.
    """

    unsettled: int
    connecting: int
    probing: int
    syncing: int
    ready: int
    lost: int
    out: int
    running: int
    launching: int
    uncollected: int
    undone: int
    unreached: int


NOTHING = Tally(*[0] * len(Tally._fields))


def conditions(node: NodeState) -> tuple[bool, ...]:
    """Which fields of a tally the node counts for."""
    troubled, lost = node.problem is not None, node.lost is not None
    ready = node.connected and node.ready
    unsettled = not (ready or troubled or lost)
    running = not lost and not troubled and node.concluded is None
    return (
        unsettled,
        unsettled and not node.connected,
        unsettled and node.facts is None,
        unsettled and not node.synced,
        ready,
        lost,
        troubled or lost,
        running,
        running and not node.launched,
        not (lost or node.collected or node.swept or troubled),
        not lost and node.swept is None,
        node.reached is None,
    )


def count(nodes: Iterable[NodeState]) -> Tally:
    """The tally from the beginning."""
    return Tally(*map(sum, zip(NOTHING, *map(conditions, nodes), strict=True)))


class _Planned(NamedTuple):
    """What was counted of the nodes that ``plan`` uses."""

    plan: Plan
    shares: Mapping[str, NodePlan]
    tally: Tally


class NodeTable(PersistentMap[str, NodeState]):
    """In the inventory's order. Counts are made when they are first asked for, and from then on
    carried from copy to copy; they are no part of the value.
    """

    __slots__ = ("_planned", "_tally")

    def __init__(
        self,
        nodes: Mapping[str, NodeState] | None = None,
        *,
        parts: Parts[str, NodeState] | None = None,
        tally: Tally | None = None,
        planned: _Planned | None = None,
    ) -> None:
        super().__init__(nodes, parts=parts)
        self._tally = tally
        self._planned = planned

    def with_item(self, key: str, value: NodeState) -> NodeTable:
        """Of a node that is there already: a run's nodes are known from the beginning."""
        before, after = conditions(self[key]), conditions(value)
        tally, planned = self._tally, self._planned
        if tally is not None:
            tally = _moved(tally, before, after)
        if planned is not None and key in planned.shares:
            planned = planned._replace(tally=_moved(planned.tally, before, after))
        return NodeTable(parts=self.changed_parts(key, value), tally=tally, planned=planned)

    @property
    def tally(self) -> Tally:
        """Of all nodes."""
        if self._tally is None:
            self._tally = count(self.values())
        return self._tally

    def tally_of(self, plan: Plan) -> Tally:
        """Of those that ``plan`` uses."""
        return self._of(plan).tally

    def shares_of(self, plan: Plan) -> Mapping[str, NodePlan]:
        """The shares of ``plan`` by node, in its order."""
        return self._of(plan).shares

    def changed_shares(self, plan: Plan, changed: Mapping[str, NodeState]) -> Sequence[NodePlan]:
        """Those of ``changed`` nodes, in the order of the plan."""
        if len(changed) == len(self):
            return plan.nodes
        shares = self.shares_of(plan)
        found = [shares[name] for name in changed if name in shares]
        return sorted(found, key=lambda share: share.node_rank)

    def _of(self, plan: Plan) -> _Planned:
        if self._planned is None or self._planned.plan is not plan:
            shares = {share.name: share for share in plan.nodes}
            self._planned = _Planned(plan, shares, count(map(self.__getitem__, shares)))
        return self._planned


def _moved(tally: Tally, before: tuple[bool, ...], after: tuple[bool, ...]) -> Tally:
    """Where a node left ``before`` for ``after``."""
    if before == after:
        return tally
    return Tally(*map(sub, map(add, tally, after), before))
