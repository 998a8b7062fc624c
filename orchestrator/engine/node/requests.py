"""What is planned, in the form in which agents are asked for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from orchestrator.core.base.codec import to_json
from orchestrator.core.base.command import reveal_secret
from orchestrator.core.containers import engine_of
from orchestrator.core.model.captures import Capture, CaptureKind
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.model.plan import Lock, ProcessPlan, Variable

# A request is one frame; a node whose facts take more of it keeps its ranks without them.
MAX_FACTS_BYTES = 256 * 1024


def agent_locks(locks: Sequence[Lock]) -> list[dict[str, object]]:
    """The agent's form of locks."""
    return [{"name": k.name, "mode": "shared" if k.shared else "exclusive"} for k in locks]


def agent_process(common: Sequence[Variable], process: ProcessPlan) -> dict[str, object]:
    """The agent's form of a planned process; secrets are opened here and travel over the
    channel.
    """
    env = {v.name: reveal_secret(v.value) for v in (*common, *process.env)}
    return {
        "label": process.label,
        "rank": process.rank,
        "argv": list(process.argv),
        "env": env,
    }


def agent_facts(facts: Facts | None) -> dict[str, Any] | None:
    """What the probe found on the node, for its ranks; None for what was only assumed."""
    if facts is None or facts.assumed:
        return None
    found: dict[str, Any] = to_json(facts)
    return found if len(json.dumps(found)) <= MAX_FACTS_BYTES else None


def agent_engine(spec: NodeSpec) -> str | None:
    """The engine whose containers outlive what started them: the agent has to remove them."""
    engine = None if spec.container is None else engine_of(spec.container)
    return engine.name.value if engine is not None and engine.keeps else None


def agent_captures(captures: Sequence[Capture]) -> list[str]:
    """What the agent is to sample; profiles are the ranks' own."""
    return [c.kind.value for c in captures if c.kind is not CaptureKind.PROFILE]
