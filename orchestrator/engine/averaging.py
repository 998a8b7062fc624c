"""Local rounds: nodes train by themselves, and their parameters are averaged here now and then."""

from __future__ import annotations

from orchestrator.engine.context import Post, RunContext
from orchestrator.engine.exchange import Exchange


async def average(exchange: Exchange, context: RunContext, post: Post) -> None:
    """Serve every round until all nodes have ended."""
    raise NotImplementedError
