"""Falling from one rung of the ladder to the next: when, and what is remembered of it. Pure."""

from __future__ import annotations

from orchestrator.core.base.problem import Problem
from orchestrator.core.model.comm_modes import BETWEEN_NODES, CommMode, Fallback, Intent
from orchestrator.core.run.state import RunState


def falls_unreached(state: RunState, problem: Problem) -> tuple[Fallback, ...]:
    """Every rung between nodes falls where they cannot even open a connection."""
    return tuple(
        Fallback(
            rung=CommMode(rung.rung),
            reason=problem.message,
            seconds=state.mesh.seconds if state.mesh is not None else 0.0,
            attempt=state.attempt,
            id=problem.id,
            remedy=problem.remedy,
        )
        for rung in state.require_plan().ladder
        if rung.rung in BETWEEN_NODES and rung.intent in (Intent.USE, Intent.NEXT)
    )


def fall_of(state: RunState, reason: str) -> Fallback:
    """The present rung, which ranks were already using."""
    if state.links is not None:
        seconds = state.links.seconds
    else:
        seconds = state.stall.silent_s if state.stall is not None else 0.0
    return Fallback(
        rung=CommMode(state.require_plan().rung),
        reason=reason,
        seconds=seconds,
        attempt=state.attempt,
        started=True,
    )


def may_fall(state: RunState) -> bool:
    """Whether the attempt that failed could go on one rung lower, if the fabric is to blame.

    Bounded: every rung falls at most once.
    """
    if state.plan is None or state.stop or state.overdue or state.refusal or state.lapsed:
        return False
    below = any(rung.intent == Intent.NEXT for rung in state.plan.ladder)
    failed = state.failures or state.hang or state.links
    return bool(below and failed and state.plan.rung in BETWEEN_NODES)
