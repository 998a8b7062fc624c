"""Which programs the nodes have on their PATH."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.core.base.command import Command
from orchestrator.core.base.outcome import Outcome
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.engine.oneshot.fanout import FanOut

LIMIT_S = 20.0
MAX_ANSWER = 64 * 1024
# Each of its arguments that is a program here, one a line.
_FIND = 'for tool; do command -v -- "$tool" >/dev/null 2>&1 && printf "%s\\n" "$tool"; done; :'


@dataclass(slots=True)
class _Answers:
    """What the nodes print; one that is not reached has no tool."""

    said: dict[str, bytes] = field(default_factory=dict)

    def output(self, node: str, stream: str, chunk: bytes) -> None:
        if stream == "out":
            self.said[node] = (self.said.get(node, b"") + chunk)[:MAX_ANSWER]

    def ended(self, node: str, outcome: Outcome) -> None:
        pass

    def unreachable(self, node: str, why: str) -> None:
        pass

    def not_started(self, node: str, outcome: Outcome | None, why: str) -> None:
        pass


async def find_tools(
    nodes: Sequence[NodeSpec], tools: Sequence[str], *, connect_timeout_s: float, width: int
) -> dict[str, frozenset[str]]:
    """Node -> those of ``tools`` that it has."""
    answers = _Answers()
    if tools:
        command = Command(argv=("sh", "-c", _FIND, "sh", *tools))
        fan = FanOut(command, timeout_s=LIMIT_S, connect_timeout_s=connect_timeout_s, width=width)
        await fan.run(nodes, answers)
    return {
        spec.name: frozenset(answers.said.get(spec.name, b"").decode(errors="replace").split())
        & frozenset(tools)
        for spec in nodes
    }
