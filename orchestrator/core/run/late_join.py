"""Divisible work begins with whoever is ready, and others join it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from orchestrator.core import launchers
from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.model.workload import Shape
from orchestrator.core.planning.planning import plan_with_joined
from orchestrator.core.run.node_state import NodeState
from orchestrator.core.run.state import RunState

NOT_READY = "not ready when the work began"


def may_begin(state: RunState) -> bool:
    """Divisible work begins as soon as the inventory's ``min_nodes`` are ready; others join it.

    Not under a scheduler: a job has the nodes that it began with.
    """
    request = state.request
    if launchers.find_scheduler(request.launcher) is not None:
        return False
    enough = request.cluster.min_nodes
    if enough is None or request.job.workload.shape is not Shape.DIVISIBLE:
        return False
    return state.nodes.tally.ready >= max(1, enough, request.job.workload.min_nodes)


def late_nodes(state: RunState) -> Iterator[tuple[str, NodeState]]:
    """Nodes that were not ready when the work began, and that may still take part."""
    if state.plan is None or state.plan.rung != CommMode.LEASES or state.halted:
        return
    if launchers.find_scheduler(state.plan.launcher) is not None:
        return
    planned = state.nodes.shares_of(state.plan)
    if len(planned) == len(state.nodes):
        return
    for name, node in state.nodes.items():
        if name not in planned and node.problem is None and node.lost is None:
            yield name, node


def join_ready_nodes(state: RunState) -> RunState:
    """Nodes that are ready by now take part from now on."""
    joining = {name for name, node in late_nodes(state) if node.connected and node.ready}
    if not joining or state.plan is None:
        return state
    planned = {share.name for share in state.plan.nodes}
    findings = {
        name: finding
        for name, node in state.nodes.items()
        if name in planned | joining and (finding := node.finding) is not None
    }
    return replace(state, plan=plan_with_joined(state.plan, state.request, findings))
