"""What a node tells of a step that takes minutes, as a line now and then: it must not look hung."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from orchestrator.adapters.agent_client.connect_agent import Channel
from orchestrator.engine.node.link import NodeLink
from orchestrator.engine.support.context import RunContext

NOTE_EVERY_S = 5.0


@asynccontextmanager
async def progress_noted(
    link: NodeLink, context: RunContext, event: str, doing: str
) -> AsyncIterator[None]:
    """Inside, lines that the agent sends as ``event`` are noted. Raises what the link raises."""
    channel = await link.open(context.request.budgets.connect_s)
    noting = asyncio.create_task(_note_lines(channel, context, event, doing))
    try:
        yield
    finally:
        noting.cancel()
        await asyncio.gather(noting, return_exceptions=True)


async def _note_lines(channel: Channel, context: RunContext, wanted: str, doing: str) -> None:
    began = context.clock.monotonic()
    told_at = began - NOTE_EVERY_S
    async for event in channel.events():
        now = context.clock.monotonic()
        line = str(event.fields.get("line", "")).strip()
        if event.name == wanted and line and now - told_at >= NOTE_EVERY_S:
            told_at = now
            context.note(f"{channel.node}: {doing}, {now - began:.0f} s: {line[:100]}")
