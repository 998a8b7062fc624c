"""The code to every node, without a run: connect, offer, send what is missing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.adapters.agent_client.connect_agent import connect_agent
from orchestrator.adapters.sync.code_snapshot import Snapshot
from orchestrator.adapters.sync.push import Sent, push_snapshot
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import DeadlineError, OrchestrateError
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.model.plan import Budgets
from orchestrator.engine.support.clock import Clock, SystemClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """How it went on one node: ``error`` is None where the code is complete.

    ``seconds`` include the connection.
    """

    node: str
    seconds: float
    sent: Sent
    error: OrchestrateError | None = None


async def bring(
    nodes: Sequence[NodeSpec], snapshot: Snapshot, budgets: Budgets, *, check: bool = False
) -> list[Brought]:
    """Bring the code to all nodes at once; one answer each, in their order.

    ``check`` has the nodes look at each file of a snapshot that they hold already.
    """
    clock = SystemClock()
    return list(
        await asyncio.gather(*(_bring(spec, snapshot, budgets, check, clock) for spec in nodes))
    )


async def _bring(
    spec: NodeSpec, snapshot: Snapshot, budgets: Budgets, check: bool, clock: Clock
) -> Brought:
    began = clock.monotonic()
    sent = Sent()
    error: OrchestrateError | None = None
    try:
        channel = await connect_agent(
            spec,
            limits=ConnectLimits(),
            timeout_s=budgets.connect_s,
            offer=None if check else snapshot.offer,
        )
        try:
            sent = await push_snapshot(
                channel,
                snapshot,
                timeout_s=budgets.sync_s,
                check=check,
                offered=channel.offered,
            )
        finally:
            with contextlib.suppress(OSError, OrchestrateError):
                await channel.close()
    except OrchestrateError as failed:
        error = failed
    except TimeoutError:
        what = f"no connection within {budgets.connect_s:g} s"
        error = DeadlineError(what, id="OR-TIME-002", where=spec.name)
    return Brought(node=spec.name, seconds=clock.monotonic() - began, sent=sent, error=error)
