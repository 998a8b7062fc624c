"""Leases samples of divisible work to workers until each has exactly one output."""

from __future__ import annotations

from orchestrator.engine.context import Post, RunContext
from orchestrator.engine.exchange import Exchange


async def divide(exchange: Exchange, context: RunContext, post: Post) -> None:
    """Serve leases until all samples are settled or nobody is left to work on them."""
    raise NotImplementedError
