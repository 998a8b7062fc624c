"""Which programs the nodes have on their PATH."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.base.command import Command
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.engine.oneshot.fanout import FanOut, GatheredOutput

LIMIT_S = 20.0
MAX_ANSWER = 64 * 1024
# Each of its arguments that is a program here, one a line.
_FIND = 'for tool; do command -v -- "$tool" >/dev/null 2>&1 && printf "%s\\n" "$tool"; done; :'


async def find_tools(
    nodes: Sequence[NodeSpec], tools: Sequence[str], *, connect_timeout_s: float, width: int
) -> dict[str, frozenset[str]]:
    """Node -> those of ``tools`` that it has."""
    answers = GatheredOutput(MAX_ANSWER)
    if tools:
        command = Command(argv=("sh", "-c", _FIND, "sh", *tools))
        fan = FanOut(command, timeout_s=LIMIT_S, connect_timeout_s=connect_timeout_s, width=width)
        await fan.run(nodes, answers)
    return {
        spec.name: frozenset(answers.said.get(spec.name, b"").decode(errors="replace").split())
        & frozenset(tools)
        for spec in nodes
    }
