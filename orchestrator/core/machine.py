"""The coordinator's brain: ``step(state, event) -> (state, actions)``. Pure.

An event is first recorded; then :func:`_wanted` says, from the state alone, what should have been
issued by now, and what was not yet issued is. Because an action's identity is a function of what it
does, replaying a journal issues exactly the same actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import assert_never

from orchestrator.core.events import (
    Action,
    Begun,
    Collect,
    Collected,
    Conclude,
    Connect,
    Connected,
    DeadlinePassed,
    Event,
    Failed,
    Launch,
    Launched,
    NodeConcluded,
    NodeLost,
    OfferRendezvous,
    Phase,
    Prepare,
    Prepared,
    Probe,
    Probed,
    Problem,
    ProcessExited,
    Progressed,
    RankExited,
    RankStarted,
    Reach,
    Reached,
    RendezvousOffered,
    Reported,
    Stop,
    StopKind,
    StopRequested,
    Sweep,
    Swept,
    Sync,
    Synced,
)
from orchestrator.core.launchers import NEEDS_RENDEZVOUS
from orchestrator.core.plan import Plan, Rendezvous
from orchestrator.core.planning import Refusal, plan, rendezvous_candidates, same_machine
from orchestrator.core.request import Budgets
from orchestrator.core.state import Figure, NodeState, RunState

NodeEvent = (
    Connected
    | Probed
    | Synced
    | Prepared
    | Reached
    | Launched
    | RankStarted
    | NodeConcluded
    | Collected
    | Swept
    | NodeLost
)


def step(state: RunState, event: Event) -> tuple[RunState, tuple[Action, ...]]:
    """Record ``event`` and say what to do next. An event that changes nothing is harmless."""
    state = _decide(_record(state, event))
    fresh = {identity(action): action for action in _wanted(state)}
    actions = {key: action for key, action in fresh.items() if key not in state.issued}
    return replace(state, issued=state.issued | actions.keys()), tuple(actions.values())


def identity(action: Action) -> str:
    """The same action has the same identity in every replay."""
    match action:
        case Conclude():
            return "Conclude"
        case Stop(node=node, grace_s=grace_s):
            return f"Stop/{node}/{grace_s:g}"
        case _:
            return f"{type(action).__name__}/{action.node}"


def phase(state: RunState) -> Phase:
    """The phase that the run waits in: the earliest thing that is not yet done."""
    if not state.begun:
        return Phase.LOAD
    if "Conclude" in state.issued:
        return Phase.CONCLUDED
    if state.launching:
        return _phase_after_launch(state)
    if state.plan is not None:
        return Phase.REACH
    open_nodes = [node for node in state.nodes.values() if not node.settled]
    if any(not node.connected for node in open_nodes):
        return Phase.CONNECT
    if any(node.facts is None for node in open_nodes):
        return Phase.PROBE
    return Phase.SYNC if any(not node.synced for node in open_nodes) else Phase.PREPARE


def budget(state: RunState) -> float | None:
    """Seconds that the current phase may take; None = as long as it needs."""
    budgets = state.request.budgets
    table: Mapping[Phase, float | None] = {
        Phase.CONNECT: budgets.connect_s,
        Phase.PROBE: budgets.probe_s,
        Phase.SYNC: budgets.sync_s,
        Phase.PREPARE: budgets.prepare_s,
        Phase.REACH: budgets.reach_s,
        Phase.LAUNCH: budgets.launch_s,
        Phase.WATCH: budgets.run_s,
        Phase.STOP: budgets.grace_s + budgets.clean_s,
        Phase.COLLECT: budgets.collect_s,
        Phase.CLEAN: budgets.clean_s,
    }
    return table.get(phase(state))


def _phase_after_launch(state: RunState) -> Phase:
    nodes = [node for _, node in state.planned() if node.lost is None]
    running = [node for node in nodes if node.concluded is None and node.problem is None]
    if running and state.halted:
        return Phase.STOP
    if any(not node.launched for node in running):
        return Phase.LAUNCH
    if running:
        return Phase.WATCH
    if any(node.collected is None and node.problem is None for node in nodes):
        return Phase.COLLECT
    return Phase.CLEAN


# ---- recording ---------------------------------------------------------------------------------


def _record(state: RunState, event: Event) -> RunState:
    match event:
        case Begun():
            return replace(state, begun=True)
        case StopRequested():
            return replace(state, stop=_more_urgent(state.stop, event))
        case DeadlinePassed():
            return _record_deadline(state, event)
        case RendezvousOffered(port=port):
            return replace(state, port=port)
        case Reported():
            return _record_figure(state, event)
        case Progressed():
            return state
        case Failed():
            return _record_failure(state, event)
        case RankExited() | ProcessExited():
            return replace(state, endings=(*state.endings, event))
        case _:
            if event.node not in state.nodes:
                return state
            node = _record_node(state.nodes[event.node], event)
            return _with_node(state, event.node, node)


def _record_node(node: NodeState, event: NodeEvent) -> NodeState:
    match event:
        case Connected():
            return replace(node, connected=True)
        case Probed(facts=facts):
            return replace(node, facts=facts)
        case Synced():
            return replace(node, synced=True)
        case Prepared():
            return replace(node, prepared=event)
        case Reached():
            return replace(node, reached=event)
        case NodeLost(problem=problem):
            return replace(node, lost=problem)
        case _:
            return _record_launched_node(node, event)


def _record_launched_node(
    node: NodeState, event: Launched | RankStarted | NodeConcluded | Collected | Swept
) -> NodeState:
    match event:
        case Launched():
            return replace(node, launched=True)
        case RankStarted(rank=rank, pid=pid):
            return replace(node, ranks={**node.ranks, rank: pid})
        case NodeConcluded():
            return replace(node, launched=True, concluded=event)
        case Collected():
            return replace(node, collected=event)
        case Swept():
            return replace(node, swept=event)
        case _:
            assert_never(event)


def _with_node(state: RunState, name: str, node: NodeState) -> RunState:
    return replace(state, nodes={**state.nodes, name: node})


def _more_urgent(old: StopRequested | None, new: StopRequested) -> StopRequested:
    return old if old is not None and old.kind is StopKind.KILL else new


def _record_figure(state: RunState, event: Reported) -> RunState:
    known = state.figures.get(event.name)
    if event.step is not None or (known is not None and known.rank < event.rank):
        return state
    figure = Figure(rank=event.rank, value=event.value, unit=event.unit)
    return replace(state, figures={**state.figures, event.name: figure})


def _record_failure(state: RunState, event: Failed) -> RunState:
    state = replace(state, problems=(*state.problems, (event.node, event.phase, event.problem)))
    node = state.nodes.get(event.node)
    if node is None or node.problem is not None:
        return state
    return _with_node(state, event.node, replace(node, problem=event.problem))


def _record_deadline(state: RunState, event: DeadlinePassed) -> RunState:
    """Before the plan, late nodes are out; after launch, what does not end is left as lost."""
    if state.launching and event.phase in (Phase.LAUNCH, Phase.WATCH):
        return replace(state, overdue=event)
    if state.plan is not None and not state.launching:
        return replace(state, overdue=event)
    message = f"did not finish phase {event.phase.value} within {event.after_s:g} s"
    problem = Problem(
        id="OR-TIME-001",
        message=message,
        remedy="leave the node out with --nodes '!NAME', or look at its load and disk",
    )
    late = {
        name: replace(node, lost=problem) if state.launching else replace(node, problem=problem)
        for name, node in state.nodes.items()
        if _is_late(state, node)
    }
    return replace(state, nodes={**state.nodes, **late})


def _is_late(state: RunState, node: NodeState) -> bool:
    if node.lost is not None:
        return False
    return node.swept is None if state.launching else not node.settled


# ---- deciding ----------------------------------------------------------------------------------


def _decide(state: RunState) -> RunState:
    """Make the plan when all nodes are settled, and complete it when the rendezvous is proven."""
    if state.refusal or state.launching or not state.begun:
        return state
    if not all(node.settled for node in state.nodes.values()):
        return state
    if state.plan is None:
        return _decide_plan(state, None)
    broken = [problem for _, at, problem in state.problems if at is Phase.REACH]
    if broken:
        return replace(state, refusal=Refusal(problem=broken[0], excluded=state.plan.excluded))
    if state.plan.rendezvous is None and _all_reached(state, state.plan):
        return _decide_rendezvous(state, state.plan)
    return state


def _decide_plan(state: RunState, rendezvous: Rendezvous | None) -> RunState:
    failed = {name: _reason(node) for name, node in state.nodes.items() if _reason(node)}
    findings = {
        name: finding
        for name, node in state.nodes.items()
        if name not in failed and (finding := node.finding) is not None
    }
    decided = plan(state.request, findings, failed, rendezvous)
    if isinstance(decided, Refusal):
        return replace(state, refusal=decided)
    return replace(state, plan=decided)


def _reason(node: NodeState) -> str:
    problem = node.problem or node.lost
    return problem.message if problem else ""


def _all_reached(state: RunState, planned: Plan) -> bool:
    if planned.launcher not in NEEDS_RENDEZVOUS or state.port is None:
        return False
    others = planned.nodes[1:]
    return all(state.nodes[share.name].reached is not None for share in others)


def _decide_rendezvous(state: RunState, planned: Plan) -> RunState:
    """The first of the head's addresses that every other node could open a connection to."""
    assert state.port is not None
    candidates = _candidates(state)
    others = [share.name for share in planned.nodes[1:]]
    for address in candidates:
        if all(address in _reached(state, name).addresses for name in others):
            interfaces = _interfaces(state, planned, address)
            rendezvous = Rendezvous(address=address, port=state.port, interfaces=interfaces)
            return _decide_plan(state, rendezvous)
    return replace(state, refusal=_unreachable(state, planned, candidates))


def _reached(state: RunState, name: str) -> Reached:
    reached = state.nodes[name].reached
    assert reached is not None
    return reached


def _interfaces(state: RunState, planned: Plan, address: str) -> tuple[tuple[str, str], ...]:
    """(node, interface) for each node: by the address that its connection really came from."""
    own = {planned.head.name: address}
    for share in planned.nodes[1:]:
        reached = _reached(state, share.name)
        own[share.name] = dict(zip(reached.addresses, reached.via, strict=False)).get(address, "")
    pairs = ((name, _interface_with(state.nodes[name], local)) for name, local in own.items())
    return tuple((name, interface) for name, interface in pairs if interface)


def _interface_with(node: NodeState, address: str) -> str:
    interfaces = node.facts.interfaces if node.facts else ()
    return next((i.name for i in interfaces if address in i.addresses), "")


def _candidates(state: RunState) -> tuple[str, ...]:
    findings = [f for _, node in state.planned() if (f := node.finding) is not None]
    return rendezvous_candidates(findings[0].facts, alone=same_machine(findings))


def _unreachable(state: RunState, planned: Plan, candidates: tuple[str, ...]) -> Refusal:
    head = planned.head.name
    blocked = [s.name for s in planned.nodes[1:] if not _reached(state, s.name).addresses]
    culprit = ", ".join(blocked) or "no address is reachable from every node; each node"
    errors = _reached(state, blocked[0]).errors[:1] if blocked else ()
    message = (
        f"{culprit} cannot open a TCP connection to {head} "
        f"(tried {', '.join(candidates)} port {state.port}{': ' + errors[0] if errors else ''})"
    )
    remedy = f"open the port range between nodes for {head}, or leave nodes out with --nodes"
    problem = Problem(id="OR-NET-001", message=message, remedy=remedy)
    return Refusal(problem=problem, excluded=planned.excluded)


# ---- acting ------------------------------------------------------------------------------------


def _wanted(state: RunState) -> Iterator[Action]:
    """All actions that the state calls for, issued or not."""
    if not state.begun:
        return
    if state.launching:
        yield from _wanted_after_launch(state)
    elif state.halted:
        yield Conclude()
    elif state.plan is None:
        yield from _wanted_before_plan(state)
    elif state.plan.launcher in NEEDS_RENDEZVOUS and state.plan.rendezvous is None:
        yield from _wanted_for_rendezvous(state, state.plan)
    else:
        yield from (Launch(node=share.name, share=share) for share in state.plan.nodes)


def _wanted_before_plan(state: RunState) -> Iterator[Action]:
    for name, node in state.nodes.items():
        yield Connect(node=name)
        if node.connected and not node.settled:
            yield Probe(node=name)
            yield Sync(node=name)
            yield Prepare(node=name)


def _wanted_for_rendezvous(state: RunState, planned: Plan) -> Iterator[Action]:
    yield OfferRendezvous(node=planned.head.name)
    if state.port is not None:
        addresses = _candidates(state)
        for share in planned.nodes[1:]:
            yield Reach(node=share.name, addresses=addresses, port=state.port)


def _wanted_after_launch(state: RunState) -> Iterator[Action]:
    for name, node in state.planned():
        if node.lost is None:
            yield from _wanted_of_node(state, name, node)
    if all(_is_done(node) for _, node in state.planned()):
        yield Conclude()


def _wanted_of_node(state: RunState, name: str, node: NodeState) -> Iterator[Action]:
    if state.halted and node.concluded is None:
        yield Stop(node=name, grace_s=_grace(state.stop, state.request.budgets))
    if node.concluded is not None or node.problem is not None:
        yield Collect(node=name)
    if node.collected is not None or _collect_failed(state, name):
        yield Sweep(node=name)


def _collect_failed(state: RunState, name: str) -> bool:
    return any(node == name and phase is Phase.COLLECT for node, phase, _ in state.problems)


def _grace(stop: StopRequested | None, budgets: Budgets) -> float:
    return 0.0 if stop is not None and stop.kind is StopKind.KILL else budgets.grace_s


def _is_done(node: NodeState) -> bool:
    return node.swept is not None or node.lost is not None
