"""The coordinator's brain: ``step(state, event) -> (state, actions)``. Pure.

An event is first recorded; then :func:`_wanted` says, from the state alone, what should have been
issued by now, and what was not yet issued is. Because an action's identity is a function of what it
does, replaying a journal issues exactly the same actions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from orchestrator.core.events import (
    Action,
    Collect,
    Conclude,
    Connect,
    Event,
    Launch,
    OfferRendezvous,
    Phase,
    Prepare,
    Probe,
    Reach,
    Stop,
    StopKind,
    StopRequested,
    Sweep,
    Sync,
)
from orchestrator.core.launchers import NEEDS_RENDEZVOUS
from orchestrator.core.meeting import all_reached, candidates_of, choose_rendezvous
from orchestrator.core.plan import Plan, Rendezvous
from orchestrator.core.planning import Refusal, plan
from orchestrator.core.recording import record
from orchestrator.core.request import Budgets
from orchestrator.core.state import NodeState, RunState


def step(state: RunState, event: Event) -> tuple[RunState, tuple[Action, ...]]:
    """Record ``event`` and say what to do next. An event that changes nothing is harmless."""
    state = _decide(record(state, event))
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
    if state.plan.rendezvous is None and all_reached(state, state.plan):
        chosen = choose_rendezvous(state, state.plan)
        if isinstance(chosen, Refusal):
            return replace(state, refusal=chosen)
        return _decide_plan(state, chosen)
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
        addresses = candidates_of(state)
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
