"""The coordinator's brain: ``step(state, event) -> (state, actions)``. Pure.

An event is first recorded; then :func:`_wanted_actions` says, from the state alone, what is still
to be done, and what this coordinator did not yet issue is issued. Because an action's identity is
a function of what it does, replaying a journal issues exactly the same actions; and because a
coordinator that takes over begins with nothing issued, it issues exactly what is not done.

While the terms of the run stay the same, only nodes that changed are looked at: what the others
call for is issued already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from orchestrator.core.base.wire_names import wire_name
from orchestrator.core.model.comm_modes import APART, CommMode
from orchestrator.core.model.plan import Budgets, NodePlan, Plan, Rendezvous
from orchestrator.core.model.request import RunRequest
from orchestrator.core.planning.planning import Refusal, make_plan
from orchestrator.core.run.actions import (
    Action,
    Classify,
    Clear,
    Collect,
    Conclude,
    Connect,
    Follow,
    Inspect,
    Launch,
    OfferRendezvous,
    Prepare,
    Probe,
    ProbeFabric,
    ProbeLinks,
    Reach,
    Reserve,
    Serve,
    Stop,
    Sweep,
    Sync,
)
from orchestrator.core.run.connectivity import Fault
from orchestrator.core.run.events import Event, Phase, StopKind, StopRequested
from orchestrator.core.run.fallback import fall_of, falls_unreached, may_fall
from orchestrator.core.run.hang import blame_rank, is_confirmed
from orchestrator.core.run.kit_reports import EnergyReported, Reported
from orchestrator.core.run.late_join import NOT_READY, join_ready_nodes, late_nodes, may_begin
from orchestrator.core.run.node_state import NodeState
from orchestrator.core.run.node_table import NodeTable
from orchestrator.core.run.recording import record_event
from orchestrator.core.run.rendezvous import (
    all_reached,
    candidates_of,
    choose_rendezvous,
    was_refused,
)
from orchestrator.core.run.state import (
    EPOCH_STEP,
    NEVER_LAUNCHED,
    RunState,
    Terms,
    next_attempt,
    revised,
    terms_of,
)

MAX_OFFERS = 2
Nodes = Mapping[str, NodeState]


def step(state: RunState, event: Event) -> tuple[RunState, tuple[Action, ...]]:
    """Record ``event`` and say what to do next.

    An event that says nothing new returns the very same ``state`` and no actions.
    """
    recorded = record_event(state, event)
    if isinstance(event, Reported | EnergyReported) and state.terms is not None:
        return recorded, ()  # no decision follows from figures
    if recorded == state:
        return state, ()
    decided = _decide(recorded)
    terms = terms_of(decided)
    # Of one attempt, so that both have the same nodes.
    same = terms == decided.terms
    changed = decided.nodes.changed_from(state.nodes) if same else decided.nodes
    fresh = {action_identity(action): action for action in _wanted_actions(decided, terms, changed)}
    actions = {key: action for key, action in fresh.items() if key not in decided.issued}
    if same and not actions:
        return decided, ()
    launching = decided.launching or any(isinstance(a, Launch) for a in actions.values())
    issued = decided.issued.with_items(dict.fromkeys(actions))
    after = revised(decided, issued=issued, launching=launching, terms=terms)
    return after, tuple(actions.values())


def action_identity(action: Action) -> str:
    """The same action has the same identity in every replay, under whatever name its class has."""
    name = wire_name(type(action))
    match action:
        case Conclude() | Reserve() | ProbeLinks():
            return f"{name}"
        case ProbeFabric(rung=rung) | Serve(rung=rung):
            return f"{name}/{rung.value}"
        case Classify(attempt=attempt):
            return f"{name}/{attempt}"
        case Stop(node=node, grace_s=grace_s):
            return f"{name}/{node}/{grace_s:g}"
        case OfferRendezvous(node=node, round=number) | Reach(node=node, round=number):
            return f"{name}/{node}" + (f"/{number}" if number > 1 else "")
        case Inspect(node=node, stall=stall):
            return f"{name}/{node}/{stall}"
        case _:
            return f"{name}/{action.node}"


def current_phase(state: RunState) -> Phase:
    """The phase that the run waits in: the earliest thing that is not yet done."""
    if not state.begun:
        return Phase.LOAD
    if "Conclude" in state.issued:
        return Phase.CONCLUDED
    if state.launching:
        return _phase_after_launch(state)
    if state.plan is not None:
        if not state.reserved:
            return Phase.RESERVE
        meeting = state.plan.meets and state.plan.rendezvous is None
        return Phase.REACH if meeting else Phase.FABRIC
    tally = state.nodes.tally
    if tally.connecting:
        return Phase.CONNECT
    if tally.probing:
        return Phase.PROBE
    return Phase.SYNC if tally.syncing else Phase.PREPARE


def phase_budget(request: RunRequest, phase: Phase) -> float | None:
    """Seconds that ``phase`` may take; None = as long as it needs."""
    budgets = request.budgets
    table: Mapping[Phase, float | None] = {
        Phase.CONNECT: budgets.connect_s,
        Phase.PROBE: budgets.probe_s,
        Phase.SYNC: budgets.sync_s,
        Phase.PREPARE: budgets.prepare_s,
        Phase.RESERVE: budgets.reach_s if request.wait_s is None else None,
        Phase.REACH: budgets.reach_s,
        Phase.FABRIC: budgets.fabric_s,
        Phase.LAUNCH: budgets.launch_s,
        Phase.WATCH: budgets.run_s,
        Phase.STOP: budgets.grace_s + budgets.clean_s,
        Phase.COLLECT: budgets.collect_s,
        Phase.CLEAN: budgets.clean_s,
        Phase.CLASSIFY: budgets.clean_s,
    }
    return table.get(phase)


def _phase_after_launch(state: RunState) -> Phase:
    tally = state.nodes.tally_of(state.require_plan())
    if tally.running and state.halted:
        return Phase.STOP
    if tally.launching:
        return Phase.LAUNCH
    if tally.running:
        return Phase.WATCH
    if tally.uncollected:
        return Phase.COLLECT
    if tally.undone:
        return Phase.CLEAN
    return Phase.COLLECT if _is_served(state) else Phase.CLASSIFY


# ---- deciding ----------------------------------------------------------------------------------


def _decide(state: RunState) -> RunState:
    """Make the plan when all nodes are settled, complete it when the rendezvous is proven, and
    begin another attempt when a lease ran out before this coordinator took over.
    """
    if state.launching:
        return _decide_next_attempt(_decide_hang(join_ready_nodes(state)))
    if state.refusal or not state.begun:
        return state
    if state.nodes.tally.unsettled and not may_begin(state):
        return state
    if state.plan is None:
        return _decide_plan(state, None)
    before = (Phase.RESERVE, Phase.REACH, Phase.FABRIC)
    broken = [problem for _, at, problem in state.problems if at in before]
    if broken:
        return replace(state, refusal=Refusal(problem=broken[0], excluded=state.plan.excluded))
    if any(fall.rung == state.plan.rung for fall in state.falls):
        return _decide_plan(state, state.plan.rendezvous)
    if state.plan.rendezvous is None and all_reached(state, state.plan):
        return _decide_rendezvous(state, choose_rendezvous(state, state.plan))
    return state


def _decide_rendezvous(state: RunState, chosen: Rendezvous | Refusal) -> RunState:
    """A head that answers, but refuses: its listener may have died with the link; it offers again
    once.
    """
    if isinstance(chosen, Rendezvous):
        return _decide_plan(state, chosen)
    if state.offers < MAX_OFFERS and was_refused(state):
        nodes = {name: replace(node, reached=None) for name, node in state.nodes.items()}
        return replace(state, port=None, nodes=NodeTable(nodes))
    # What one direction to the head tells is half of it: first all nodes dial each other.
    return state if state.mesh is None else _decide_unreached(state, chosen)


def _decide_unreached(state: RunState, refused: Refusal) -> RunState:
    """Nodes that cannot even open a connection have no use for any collective between them."""
    lost = falls_unreached(state, refused.problem)
    return _decide_plan(replace(state, falls=(*state.falls, *lost)), None)


def _decide_hang(state: RunState) -> RunState:
    """Once every node was looked at: the suspicion is confirmed, or forgotten."""
    stall = state.stall
    if stall is None or state.halted:
        return state
    running = {name for name, node in state.planned() if _is_running(node)}
    found = {name: i for name, i in state.inspections.items() if name in running}
    if len(found) < len(running):
        return state
    if is_confirmed(stall.ranks, stall.limit_s, found):
        return replace(state, hang=blame_rank(found, stall.ranks))
    return replace(state, stall=None)


def _is_running(node: NodeState) -> bool:
    return node.launched and not (node.concluded or node.problem or node.lost)


def _decide_next_attempt(state: RunState) -> RunState:
    """Ranks that a lease ended while nobody coordinated go on from their checkpoints; those that
    the fabric let down do so one rung lower.
    """
    if state.classified is not None and state.classified.fault is Fault.FABRIC:
        falls = (*state.falls, fall_of(state, state.classified.reason))
        return next_attempt(state, state.epoch + EPOCH_STEP, falls)
    unasked = state.lapsed and not (state.stop or state.overdue or state.failures or state.broken)
    if unasked and state.resumed and not state.nodes.tally_of(state.require_plan()).undone:
        return next_attempt(state, state.epoch + EPOCH_STEP, state.falls)
    return state


def _decide_plan(state: RunState, rendezvous: Rendezvous | None) -> RunState:
    late = may_begin(state)
    failed = {
        name: _exclusion_reason(node) or NOT_READY
        for name, node in state.nodes.items()
        if _exclusion_reason(node) or (late and not node.settled)
    }
    findings = {
        name: finding
        for name, node in state.nodes.items()
        if name not in failed and (finding := node.finding) is not None
    }
    decided = make_plan(state.request, findings, failed, rendezvous, state.falls)
    if isinstance(decided, Refusal):
        return replace(state, refusal=decided)
    return replace(state, plan=decided)


def _exclusion_reason(node: NodeState) -> str:
    problem = node.problem or node.lost
    return problem.message if problem else ""


# ---- acting ------------------------------------------------------------------------------------


def _wanted_actions(state: RunState, terms: Terms, changed: Nodes) -> Iterator[Action]:
    """All actions on ``changed`` nodes and on the whole run that the state calls for, issued or
    not.
    """
    if not state.begun:
        return
    if state.launching:
        yield from _wanted_after_launch(state, terms, changed)
    elif terms.halted:
        yield Conclude()
    elif state.plan is None:
        yield from _wanted_before_plan(changed)
    elif not state.reserved:
        yield Reserve()
    elif state.plan.meets and state.plan.rendezvous is None:
        yield from _wanted_for_rendezvous(state, state.plan, changed)
    elif state.fabric is None and state.plan.proves_fabric:
        yield ProbeFabric(rung=CommMode(state.plan.rung))
    else:
        shares = state.nodes.changed_shares(state.plan, changed)
        yield from (Launch(node=share.name, share=share) for share in shares)


def _wanted_before_plan(changed: Nodes) -> Iterator[Action]:
    for name, node in changed.items():
        if node.problem is None and node.lost is None:
            yield from _wanted_before_launch(name, node)


def _wanted_before_launch(name: str, node: NodeState) -> Iterator[Action]:
    yield Connect(node=name)
    if node.connected:
        yield from _wanted_of_connected(name, node)


def _wanted_of_connected(name: str, node: NodeState) -> Iterator[Action]:
    if node.stale:
        yield Clear(node=name)
    if node.facts is None:
        yield Probe(node=name)
    if not node.synced:
        yield Sync(node=name)
    if node.prepared is None:
        yield Prepare(node=name)


def _wanted_for_rendezvous(state: RunState, planned: Plan, changed: Nodes) -> Iterator[Action]:
    if state.port is None:
        yield OfferRendezvous(node=planned.head.name, round=state.offers + 1)
        return
    shares = state.nodes.changed_shares(planned, changed)
    others = [share.name for share in shares if share is not planned.head]
    waiting = [name for name in others if changed[name].reached is None]
    addresses = candidates_of(state) if waiting else ()
    for name in waiting:
        yield Reach(node=name, addresses=addresses, port=state.port, round=state.offers)
    if all_reached(state, planned):
        yield ProbeLinks()


def _wanted_after_launch(state: RunState, terms: Terms, changed: Nodes) -> Iterator[Action]:
    plan = state.require_plan()
    for share in state.nodes.changed_shares(plan, changed):
        if changed[share.name].lost is None:
            yield from _wanted_of_node(state, share, halted=terms.halted)
    for name, node in late_nodes(state):
        if name in changed:
            yield from _wanted_before_launch(name, node)
    if plan.rung in APART and not terms.halted:
        yield Serve(rung=CommMode(plan.rung))
    if _is_served(state):
        return
    if not state.nodes.tally_of(plan).undone:
        unsure = may_fall(state) and state.classified is None
        yield Classify(attempt=state.attempt) if unsure else Conclude()


def _is_served(state: RunState) -> bool:
    """Whether leases are not accounted for yet: their service says so itself, or fails."""
    over = state.unserved or (state.divided is not None and state.divided.final)
    return f"Serve/{CommMode.LEASES.value}" in state.issued and not over


def _wanted_of_node(state: RunState, share: NodePlan, *, halted: bool) -> Iterator[Action]:
    name, node = share.name, state.nodes[share.name]
    if not node.connected:
        yield Connect(node=name)  # after a takeover
        return
    ended = node.concluded is not None or node.problem is not None
    if not ended and node.launched:
        yield Follow(node=name)
        if state.stall is not None and not halted and name not in state.inspections:
            yield Inspect(node=name, stall=state.stalls)
    elif not ended and not halted:
        yield Launch(node=name, share=share)
    if (halted or _holds_up(state, name)) and node.concluded is None:
        yield Stop(node=name, grace_s=_grace_seconds(state.stop, state.request.budgets))
    nothing = node.concluded is not None and node.concluded.why == NEVER_LAUNCHED
    if ended and node.collected is None and not nothing:
        yield Collect(node=name)
    kept = nothing or node.collected is not None or _collect_failed(state, name)
    if kept and node.swept is None:
        yield Sweep(node=name)


def _holds_up(state: RunState, name: str) -> bool:
    """Whether the node's ranks hang, where those of the others can go on without them."""
    apart = state.plan is not None and state.plan.apart
    return apart and state.hang is not None and state.hang.node == name


def _collect_failed(state: RunState, name: str) -> bool:
    return any(node == name and phase is Phase.COLLECT for node, phase, _ in state.problems)


def _grace_seconds(stop: StopRequested | None, budgets: Budgets) -> float:
    return 0.0 if stop is not None and stop.kind is StopKind.KILL else budgets.grace_s
