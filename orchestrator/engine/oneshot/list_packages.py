"""Which packages the interpreters of ranks have, as pins that pip reads."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.base.command import Command
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.engine.oneshot.fanout import FanOut, GatheredOutput

LIMIT_S = 60.0
MAX_ANSWER = 1 << 20
# Pins below the path of each interpreter that this node has; one that fails is left out.
_LIST = """program=$1; shift
for python; do
  [ -x "$python" ] || continue
  printf '# %s\n' "$python"
  "$python" -I -c "$program" || printf '# cannot be listed\n'
done; :
"""
_PROGRAM = """
from importlib.metadata import distributions
found = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
print("\\n".join(f"{name}=={found[name]}" for name in sorted(found, key=str.casefold)))
"""


async def list_packages(
    nodes: Sequence[NodeSpec],
    interpreters: Sequence[str],
    *,
    connect_timeout_s: float,
    width: int,
) -> dict[str, bytes]:
    """Node -> its pins; a node that is not reached is left out."""
    answers = GatheredOutput(MAX_ANSWER)
    command = Command(argv=("sh", "-c", _LIST, "sh", _PROGRAM, *interpreters))
    fan = FanOut(command, timeout_s=LIMIT_S, connect_timeout_s=connect_timeout_s, width=width)
    if interpreters:
        await fan.run(nodes, answers)
    return answers.said
