"""What a plan warns of, and whom it leaves out: said when the plan is made, not only at the end."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.model.plan import Plan
from orchestrator.core.run.state import RunState
from orchestrator.view.progress.narrate import NarratedLine, Weight
from orchestrator.view.terminal.text import brief_text

WIDTH = 400


class PlanNews:
    """A plan is made anew as more becomes known: each sentence is said once."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._said: set[NarratedLine] = set()

    def lines(self, state: RunState) -> list[NarratedLine]:
        """What has not been said yet."""
        if state.plan is None or state.plan is self._plan:
            return []
        self._plan = state.plan
        fresh = [line for line in _lines(state.plan) if line not in self._said]
        self._said.update(fresh)
        return fresh


def _lines(plan: Plan) -> Iterator[NarratedLine]:
    for excluded in plan.excluded:
        yield NarratedLine(
            Weight.PROBLEM, brief_text(f"left out: {excluded.reason}", WIDTH), excluded.node
        )
    for warning in plan.warnings:
        yield NarratedLine(Weight.PROBLEM, brief_text(f"warning: {warning}", WIDTH))
