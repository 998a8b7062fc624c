"""How far a node is, in one word. Pure."""

from __future__ import annotations

from orchestrator.core.run.node_state import NodeState


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
