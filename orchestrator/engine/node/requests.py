"""What is planned, in the form in which agents are asked for it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.base.command import reveal
from orchestrator.core.model.plan import Lock, ProcessPlan, Variable


def agent_locks(locks: Sequence[Lock]) -> list[dict[str, object]]:
    """The agent's form of locks."""
    return [{"name": k.name, "mode": "shared" if k.shared else "exclusive"} for k in locks]


def agent_process(common: Sequence[Variable], process: ProcessPlan) -> dict[str, object]:
    """The agent's form of a planned process; secrets are opened here and travel over the
    channel.
    """
    env = {v.name: reveal(v.value) for v in (*common, *process.env)}
    return {
        "label": process.label,
        "rank": process.rank,
        "argv": list(process.argv),
        "env": env,
    }
