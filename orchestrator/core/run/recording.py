"""What an event changes in what is known. Pure; it decides nothing.

An event that says nothing new leaves the state equal: deliveries may repeat themselves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from orchestrator.core.base.outcome import has_succeeded
from orchestrator.core.base.persistent_map import PersistentMap
from orchestrator.core.base.problem import Problem
from orchestrator.core.fabric.fabric_verdict import remedy_for
from orchestrator.core.model.comm_modes import Fallback
from orchestrator.core.run.connectivity import (
    Classified,
    FabricProbed,
    Fault,
    LinksBroken,
    LinksProbed,
    Reached,
    RendezvousOffered,
)
from orchestrator.core.run.events import (
    Begun,
    Cleared,
    Collected,
    Connected,
    DeadlinePassed,
    Divided,
    Event,
    Failed,
    Halting,
    Launched,
    NodeConcluded,
    NodeLost,
    Occupied,
    Phase,
    Prepared,
    Probed,
    ProcessExited,
    RankExited,
    RankStarted,
    Reserved,
    Resumed,
    RoundClosed,
    StopKind,
    StopRequested,
    Swept,
    Synced,
)
from orchestrator.core.run.evidence import Inspected, Stalled
from orchestrator.core.run.kit_reports import EnergyReported, Progressed, Reported
from orchestrator.core.run.node_state import Ending, NodeState
from orchestrator.core.run.node_table import NodeTable
from orchestrator.core.run.node_telemetry import TelemetryRead
from orchestrator.core.run.rendezvous import all_reached
from orchestrator.core.run.state import (
    LEASE,
    Figure,
    RunState,
    new_state,
    next_attempt,
    revised,
)

NodeEvent = (
    Connected
    | Cleared
    | Probed
    | Synced
    | Prepared
    | Reached
    | Launched
    | RankStarted
    | Halting
    | NodeConcluded
    | Collected
    | Swept
    | NodeLost
)
LadderEvent = LinksProbed | FabricProbed | LinksBroken | Classified | Divided | RoundClosed
RunEvent = Begun | Resumed | StopRequested | DeadlinePassed | Reserved | Occupied


def record_event(state: RunState, event: Event) -> RunState:
    """``state`` with ``event`` in it. An event that says nothing new changes nothing."""
    match event:
        case Begun() | Resumed() | StopRequested() | DeadlinePassed() | Reserved() | Occupied():
            return _record_run(state, event)
        case (
            LinksProbed()
            | FabricProbed()
            | LinksBroken()
            | Classified()
            | Divided()
            | RoundClosed()
        ):
            return _record_ladder(state, event)
        case RendezvousOffered(port=port):
            offers = state.offers + (port != state.port)
            return replace(state, port=port, offers=offers)
        case Reported():
            return _record_figure(state, event)
        case Progressed() | TelemetryRead():
            return state
        case EnergyReported():
            return _record_energy(state, event)
        case Failed():
            return _record_failure(state, event)
        case Stalled() | Inspected():
            return _record_hang(state, event)
        case RankExited() | ProcessExited():
            return _record_ending(state, event)
        case _:
            if event.node not in state.nodes:
                return state
            if isinstance(event, Halting):
                state = _record_lapse(state, event)
            node = _record_node(state.nodes[event.node], event)
            return _with_node(state, event.node, node)


def _record_energy(state: RunState, event: EnergyReported) -> RunState:
    if state.energy.get(event.place) == event:
        return state
    return revised(state, energy=state.energy.with_item(event.place, event))


def _record_ending(state: RunState, event: Ending) -> RunState:
    node = state.nodes.get(event.node)
    if event in (state.endings if node is None else node.endings):
        return state
    if node is not None:
        ended = replace(node, endings=(*node.endings, event))
        state = _with_node(state, event.node, ended)
    failed = () if event.by_us or has_succeeded(event.outcome) else (event,)
    endings = (*state.endings, event)
    return revised(state, endings=endings, failed=(*state.failed, *failed))


def _record_lapse(state: RunState, event: Halting) -> RunState:
    """Why a node halts is what it said first."""
    if event.why != LEASE or state.nodes[event.node].halting is not None:
        return state
    return replace(state, lapses=(*state.lapses, event))


def _record_run(state: RunState, event: RunEvent) -> RunState:
    match event:
        case Begun():
            return replace(state, begun=True)
        case Resumed():
            return _record_takeover(state, event)
        case StopRequested():
            return replace(state, stop=_more_urgent(state.stop, event))
        case DeadlinePassed():
            return _record_deadline(state, event)
        case Reserved():
            return replace(state, reserved=True)
        case Occupied():
            return replace(state, occupied=event)
        case _:
            assert_never(event)


def _record_ladder(state: RunState, event: LadderEvent) -> RunState:
    match event:
        case LinksProbed():
            return _record_mesh(state, event)
        case FabricProbed():
            return _record_fabric(state, event)
        case LinksBroken():
            watched = state.launching and not state.halted and state.links is None
            return replace(state, links=event) if watched else state
        case Classified(attempt=attempt):
            return replace(state, classified=event) if attempt == state.attempt else state
        case Divided():
            over = state.divided is not None and state.divided.final
            return state if over else replace(state, divided=event)
        case RoundClosed():
            known = any(closed.round == event.round for closed in state.rounds)
            return state if known else replace(state, rounds=(*state.rounds, event))
        case _:
            assert_never(event)


def _record_mesh(state: RunState, event: LinksProbed) -> RunState:
    """It counts while the ranks' meeting point is looked for."""
    wanted = state.plan is not None and state.plan.rendezvous is None and not state.launching
    return replace(state, mesh=event) if wanted and state.mesh is None else state


def _record_fabric(state: RunState, event: FabricProbed) -> RunState:
    """It counts for the rung that is planned, and only until the ranks are launched."""
    if state.launching or state.plan is None or state.plan.rung != event.rung:
        return state
    if event.ok:
        return replace(state, fabric=event)
    fall = Fallback(
        rung=event.rung,
        reason=event.reason,
        seconds=event.seconds,
        attempt=state.attempt,
        remedy=remedy_for(event.culprits, event.links, state.request.cluster.source),
    )
    return replace(state, falls=(*state.falls, fall))


def _record_hang(state: RunState, event: Stalled | Inspected) -> RunState:
    """One suspicion at a time, and none of a run that ends anyway; late answers are to none."""
    match event:
        case Stalled():
            if state.halted or state.stall is not None or not state.launching:
                return state
            return replace(state, stall=event, stalls=state.stalls + 1, inspections={})
        case Inspected(node=node, stall=stall, inspection=inspection):
            if state.stall is None or stall != state.stalls or node in state.inspections:
                return state
            return replace(state, inspections={**state.inspections, node: inspection})


def _record_takeover(state: RunState, event: Resumed) -> RunState:
    """Forget what was in flight and what lived in the old coordinator and its agents."""
    state = replace(state, successor=event.request)
    if event.again:
        return next_attempt(state, event.epoch)
    state = _forget_collecting(state)
    nodes = NodeTable(
        {n: replace(node, connected=False, reached=None) for n, node in state.nodes.items()}
    )
    state = replace(
        state,
        epoch=event.epoch,
        resumed=True,
        issued=PersistentMap(),
        terms=None,
        nodes=nodes,
        occupied=None,
    )
    if state.launching:
        return state
    if event.request is not None:
        state = replace(state, request=event.request, nodes=new_state(event.request).nodes)
    return replace(state, plan=None, port=None, offers=0, reserved=False, mesh=None, fabric=None)


def _forget_collecting(state: RunState) -> RunState:
    """What could not be brought home, for want of space here or because a link broke, is tried
    again.
    """
    failed = {node: problem for node, at, problem in state.problems if at is Phase.COLLECT}
    nodes = {
        name: replace(node, swept=None, problem=_unless(node.problem, failed[name]))
        for name, node in state.nodes.items()
        if name in failed
    }
    kept = tuple(told for told in state.problems if told[1] is not Phase.COLLECT)
    return replace(state, nodes=NodeTable({**state.nodes, **nodes}), problems=kept)


def _unless(problem: Problem | None, forgotten: Problem) -> Problem | None:
    return None if problem == forgotten else problem


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
        case Cleared():
            return _record_cleared(node, event)
        case _:
            return _record_launched_node(node, event)


def _record_cleared(node: NodeState, event: Cleared) -> NodeState:
    if event.clean:
        return replace(node, stale=False)
    problem = Problem(
        id="OR-CLEAN-001",
        message=f"an earlier attempt is still there: {', '.join(event.survivors)}",
        remedy="end these processes, or reboot the node; then resume",
    )
    return replace(node, problem=problem)


def _record_launched_node(
    node: NodeState, event: Launched | RankStarted | Halting | NodeConcluded | Collected | Swept
) -> NodeState:
    match event:
        case Launched():
            return replace(node, launched=True)
        case RankStarted(rank=rank, pid=pid):
            return replace(node, ranks={**node.ranks, rank: pid})
        case Halting():
            return replace(node, halting=node.halting or event)
        case NodeConcluded():
            return replace(node, concluded=event)
        case Collected():
            return replace(node, collected=event)
        case Swept():
            return replace(node, swept=event)
        case _:
            assert_never(event)


def _with_node(state: RunState, name: str, node: NodeState) -> RunState:
    return revised(state, nodes=state.nodes.with_item(name, node))


def _more_urgent(old: StopRequested | None, new: StopRequested) -> StopRequested:
    """A more urgent request keeps the time and the name of the first."""
    if old is None:
        return new
    return replace(old, kind=StopKind.KILL) if new.kind is StopKind.KILL else old


def _record_figure(state: RunState, event: Reported) -> RunState:
    place = (event.node, event.rank)
    known = event.position and event.position <= state.positions.get(place, 0)
    if known or event.attempt is not None:
        return state
    if event.position:  # what the coordinator itself works out is in no rank's file
        state = revised(state, positions=state.positions.with_item(place, event.position))
    other = state.figures.get(event.name)
    if event.step is not None or (other is not None and other.rank < event.rank):
        return state
    figure = Figure(rank=event.rank, value=event.value, unit=event.unit)
    if figure == other:
        return state
    return replace(state, figures={**state.figures, event.name: figure})


def _record_failure(state: RunState, event: Failed) -> RunState:
    told = (event.node, event.phase, event.problem)
    if told in state.problems:
        return state
    state = replace(state, problems=(*state.problems, told))
    if event.phase is Phase.CLASSIFY:
        return _unclassified(state, event.problem.message)
    node = state.nodes.get(event.node)
    if node is not None and state.launching and event.phase is Phase.CONNECT:
        return _with_node(state, event.node, replace(node, lost=event.problem))
    if node is None or node.problem is not None:
        return state
    return _with_node(state, event.node, replace(node, problem=event.problem))


def _unclassified(state: RunState, reason: str) -> RunState:
    """What cannot be put down to the fabric is not."""
    unknown = Classified(attempt=state.attempt, fault=Fault.OTHER, reason=reason)
    return replace(state, classified=state.classified or unknown)


def _record_deadline(state: RunState, event: DeadlinePassed) -> RunState:
    """Before the plan, late nodes are out; after launch, what does not end is left as lost."""
    if event.phase is Phase.CLASSIFY:
        return _unclassified(state, f"not known within {event.after_s:g} s")
    if state.launching and event.phase in (Phase.LAUNCH, Phase.WATCH):
        return replace(state, overdue=event)
    if state.plan is not None and not state.launching:
        if event.phase is Phase.REACH and all_reached(state, state.plan):
            # It is known that the head was not reached; why would only have been better to know.
            return _record_mesh(state, LinksProbed(reason=""))
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
    return replace(state, nodes=NodeTable({**state.nodes, **late}))


def _is_late(state: RunState, node: NodeState) -> bool:
    if node.lost is not None:
        return False
    return node.swept is None if state.launching else not node.settled
