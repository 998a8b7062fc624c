"""A link to one node for the time of one task."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.model.plan import Budgets
from orchestrator.engine.node.link import NodeLink
from orchestrator.engine.support.clock import SystemClock


@contextlib.asynccontextmanager
async def node_link(
    spec: NodeSpec, budgets: Budgets, limits: ConnectLimits | None = None
) -> AsyncIterator[NodeLink]:
    """Not open yet: ``open`` and ``request`` raise why it cannot be. Closed at the end."""
    limits = limits or ConnectLimits()
    link = NodeLink(spec, silence_s=budgets.silence_s, limits=limits, clock=SystemClock())
    try:
        yield link
    finally:
        await link.close()
