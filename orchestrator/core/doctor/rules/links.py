"""Links between the nodes: can each of them open connections to the others?"""

from __future__ import annotations

from orchestrator.core.doctor.check_model import (
    NONE,
    OK,
    Check,
    CheckAnswer,
    CheckedNode,
    fail_answer,
    unknown_answer,
)
from orchestrator.core.fabric.fabric_verdict import MAX_NAMED, FabricVerdict, remedy_for


def _node_connections(look: CheckedNode) -> CheckAnswer:
    mesh, name = look.fleet.mesh, look.subject.name
    if mesh is None:
        return NONE
    if name in mesh.unasked:
        return unknown_answer(f"the links to the other nodes: {mesh.unasked[name]}")
    mine = [part for part in mesh.broken if _verdict_concerns(part, name)]
    if not mine:
        return OK
    culprits = tuple(dict.fromkeys(culprit for part in mine for culprit in part.culprits))
    links = tuple(link for part in mine for link in part.links)
    told = "; ".join(part.sentence for part in mine[:MAX_NAMED])
    return fail_answer(told, remedy_for(culprits, links))


def _verdict_concerns(part: FabricVerdict, name: str) -> bool:
    """Of a node that is to blame the others are only witnesses."""
    return name in part.culprits or any(name in link for link in part.links)


CHECKS = (
    Check(
        id="OR-DOC-NET-001",
        name="links",
        remedy="repair the network or the firewall between the nodes",
        judge=_node_connections,
    ),
)
