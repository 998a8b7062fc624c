"""Who reaches whom by TCP: every node listens for a moment, and the others dial it."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.state import RunState
from orchestrator.engine.node_hand import NodeHand


async def broken_links(
    nodes: Mapping[str, NodeHand], state: RunState
) -> tuple[tuple[str, str], ...]:
    """(from, to) of the plan's nodes that cannot open a connection. Raises what links raise."""
    raise NotImplementedError
