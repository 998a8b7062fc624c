"""Taking the locks of all nodes before anything is launched: all of them, or none for now.

Who waits holds nothing meanwhile, so that two runs that want the same nodes cannot block each other
for ever.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from orchestrator.core.model.plan import Plan
from orchestrator.core.run.events import Occupied, Reserved
from orchestrator.core.run.state import RunState
from orchestrator.engine.node.node_launch import NodeLauncher
from orchestrator.engine.support.context import RunContext

RETRY_S = 2.0
NOTE_EVERY_S = 60.0


async def reserve_nodes(
    nodes: Mapping[str, NodeLauncher], state: RunState, context: RunContext
) -> Reserved | Occupied:
    """Reserve every node of the plan, within the request's ``wait_s``. Raises what links raise."""
    plan, began = state.require_plan(), context.clock.monotonic()
    told_at, told = began - NOTE_EVERY_S, ""
    # Seeded by the run: two runs that wait for each other do not do so in step.
    pauses = random.Random(state.request.run_id)
    while True:
        occupied = await _reserve_once(nodes, plan)
        if occupied is None:
            return Reserved()
        now = context.clock.monotonic()
        if now - began >= (state.request.wait_s or 0.0):
            return occupied
        if occupied.holder != told or now - told_at >= NOTE_EVERY_S:
            told, told_at = occupied.holder, now
            context.note(f"waiting for {occupied.node}: held by {occupied.holder}")
        await asyncio.sleep(RETRY_S * pauses.uniform(0.5, 1.5))


async def _reserve_once(nodes: Mapping[str, NodeLauncher], plan: Plan) -> Occupied | None:
    """One attempt on all nodes at once; what was got is given back unless all was got."""
    answers = await asyncio.gather(
        *(nodes[share.name].reserve_locks(share.locks) for share in plan.nodes),
        return_exceptions=True,
    )
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    occupied = [answer for answer in answers if isinstance(answer, Occupied)]
    if errors or occupied:
        got = [s.name for s, answer in zip(plan.nodes, answers, strict=True) if answer is None]
        await asyncio.gather(*(nodes[name].release_locks() for name in got), return_exceptions=True)
    if errors:
        raise errors[0]
    return occupied[0] if occupied else None
