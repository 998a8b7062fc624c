"""Where the ranks meet: the head's address that every other node proved it can reach. Pure."""

from __future__ import annotations

from orchestrator.core.base.problem import Problem
from orchestrator.core.fabric.fabric_verdict import remedy_for
from orchestrator.core.model.plan import Plan, Rendezvous
from orchestrator.core.planning.placing import same_machine
from orchestrator.core.planning.planning import Refusal, rendezvous_candidates
from orchestrator.core.run.connectivity import Reached
from orchestrator.core.run.node_state import NodeState
from orchestrator.core.run.state import RunState


def all_reached(state: RunState, planned: Plan) -> bool:
    """Whether every node has told which of the head's addresses it reached."""
    if not planned.meets or state.port is None:
        return False
    if state.nodes.tally_of(planned).unreached > 1:  # besides the head, which is asked by all
        return False
    others = planned.nodes[1:]
    return all(state.nodes[share.name].reached is not None for share in others)


def choose_rendezvous(state: RunState, planned: Plan) -> Rendezvous | Refusal:
    """The first of the head's addresses that every other node could open a connection to."""
    assert state.port is not None
    candidates = candidates_of(state)
    others = [share.name for share in planned.nodes[1:]]
    for address in candidates:
        if all(address in _reached_by(state, name).addresses for name in others):
            return _met_at(state, planned, address)
    return _unreachable_refusal(state, planned, candidates)


def nearest_miss(state: RunState, planned: Plan) -> Rendezvous:
    """Where most nodes would meet: what to try again to learn why the others cannot."""
    reached = [_reached_by(state, share.name).addresses for share in planned.nodes[1:]]
    counts = {address: sum(address in r for r in reached) for address in candidates_of(state)}
    return _met_at(state, planned, max(counts, key=lambda address: counts[address]))


def _met_at(state: RunState, planned: Plan, address: str) -> Rendezvous:
    assert state.port is not None
    interfaces = _interfaces_used(state, planned, address)
    return Rendezvous(address=address, port=state.port, interfaces=interfaces)


def was_refused(state: RunState) -> bool:
    """Whether a node was refused rather than unheard: the head is there, its listener is not."""
    reached = (node.reached for _, node in state.planned())
    return any("refused" in error for r in reached if r is not None for error in r.errors)


def _reached_by(state: RunState, name: str) -> Reached:
    reached = state.nodes[name].reached
    assert reached is not None
    return reached


def _interfaces_used(state: RunState, planned: Plan, address: str) -> tuple[tuple[str, str], ...]:
    """(node, interface) for each node: by the address that its connection really came from."""
    own = {planned.head.name: address}
    for share in planned.nodes[1:]:
        reached = _reached_by(state, share.name)
        own[share.name] = dict(zip(reached.addresses, reached.via, strict=False)).get(address, "")
    pairs = ((name, _interface_with(state.nodes[name], local)) for name, local in own.items())
    return tuple((name, interface) for name, interface in pairs if interface)


def _interface_with(node: NodeState, address: str) -> str:
    interfaces = node.facts.interfaces if node.facts else ()
    return next((i.name for i in interfaces if address in i.addresses), "")


def candidates_of(state: RunState) -> tuple[str, ...]:
    findings = [f for _, node in state.planned() if (f := node.finding) is not None]
    return rendezvous_candidates(findings[0].facts, alone=same_machine(findings))


def _unreachable_refusal(state: RunState, planned: Plan, candidates: tuple[str, ...]) -> Refusal:
    """In the words of the links between all nodes where those explain it, else of what was tried
    in one direction.
    """
    head, mesh = planned.head.name, state.mesh
    blocked = [s.name for s in planned.nodes[1:] if not _reached_by(state, s.name).addresses]
    links = tuple((head, name) for name in blocked)
    tried = f"{', '.join(candidates)} port {state.port}"
    cluster = state.request.cluster.source
    if mesh is not None and mesh.reason:
        message = f"{mesh.reason} ({head} was tried at {tried})"
        remedy = remedy_for(mesh.culprits, mesh.links, cluster)
    else:
        culprit = ", ".join(blocked) or "no address is reachable from every node; each node"
        errors = _reached_by(state, blocked[0]).errors[:1] if blocked else ()
        message = (
            f"{culprit} cannot open a TCP connection to {head} "
            f"(tried {tried}{': ' + errors[0] if errors else ''})"
        )
        remedy = remedy_for((), links, cluster)
    problem = Problem(id="OR-NET-001", message=message, remedy=remedy)
    return Refusal(problem=problem, excluded=planned.excluded)
