"""How each node, and each rung of the ladder, stands at the end of a run. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.base.outcome import describe_outcome
from orchestrator.core.model.comm_modes import CommMode, Intent
from orchestrator.core.run.node_state import Ending, NodeState
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.failure_cause import ending_name, first_cause
from orchestrator.core.verdict.result import NOT_LOOKED_AT, NodeResult, RungResult

VERIFIED_CLEAN = "verified clean"
NOT_STARTED = "no rank was started"


def rungs_of(state: RunState) -> Iterator[RungResult]:
    """Best first: what failed and how long it took to know, what was used, what was not needed."""
    falls = {fall.rung: fall for fall in state.falls}
    for rung in state.plan.ladder if state.plan else ():
        fall = falls.get(CommMode(rung.rung))
        if fall is not None:
            yield RungResult(
                rung=rung.rung, outcome="failed", reason=fall.reason, seconds=fall.seconds
            )
        elif rung.intent == Intent.USE and state.launching:
            seconds = state.fabric.seconds if state.fabric is not None else None
            yield RungResult(rung=rung.rung, outcome="used", reason=rung.reason, seconds=seconds)
        else:
            yield RungResult(rung=rung.rung, outcome="skipped", reason=rung.reason)


def is_degraded(state: RunState) -> bool:
    """Whether the job got through otherwise than planned: lower on the ladder, or without nodes
    that were lost on the way.
    """
    if state.plan is None:
        return False
    lame = any(node.lost or node.problem for _, node in state.planned())
    failed = lame or state.failures or state.hang
    return bool(state.falls or (state.plan.apart and failed))


def nodes_of(state: RunState) -> Iterator[NodeResult]:
    excluded = state.plan.excluded if state.plan else ()
    if state.refusal is not None:
        excluded = state.refusal.excluded
    reasons = {exclusion.node: exclusion.reason for exclusion in excluded}
    cause = first_cause(state)
    ranks = {share.name: len(share.ranks) for share in state.plan.nodes} if state.plan else {}
    for name, node in state.nodes.items():
        if name in reasons:
            yield NodeResult(name=name, state="excluded", reason=reasons[name])
        else:
            label, reason = _node_state(state, name, node, cause)
            yield NodeResult(name=name, state=label, reason=reason, ranks=ranks.get(name, 0))


def _came_to_its_end(state: RunState, node: str) -> bool:
    """Whether the node's workers ended by themselves because no work was left."""
    settled = state.stop is None and state.divided is not None and state.divided.final
    return settled and not any(ending.node == node and ending.by_us for ending in state.endings)


def _node_state(
    state: RunState, name: str, node: NodeState, cause: Ending | None
) -> tuple[str, str]:
    if node.lost is not None:
        return "lost", node.lost.message
    if node.swept is not None and not node.swept.clean:
        return "dirty", f"still running: {', '.join(node.swept.survivors)}"
    if node.swept is not None and node.swept.gpu_drained is False:
        return "dirty", "all processes exited, but GPU memory was not freed"
    if node.problem is not None:
        return "failed", node.problem.message
    if state.hang is not None and state.hang.node == name:
        return "failed", state.hang.sentence
    if cause is not None and cause.node == name:
        return "failed", f"{ending_name(cause)} {describe_outcome(cause.outcome)}"
    if not state.launching:
        return _unlaunched_status(state, node)
    if state.halted and not _came_to_its_end(state, name):
        return "stopped", f"stopped by orchestrate; {VERIFIED_CLEAN}" if node.swept else ""
    return "used", ""


def _unlaunched_status(state: RunState, node: NodeState) -> tuple[str, str]:
    """Of an attempt that ended before its launch."""
    if node.stale:
        return "dirty", NOT_LOOKED_AT
    before = f"; {VERIFIED_CLEAN} after earlier attempts" if state.attempt > 1 else ""
    return "unused", f"{NOT_STARTED}{before}"
