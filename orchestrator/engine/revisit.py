"""Going back to the nodes of a run without its coordinator: stop what is left, remove what it
stored.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from orchestrator.boundary.supervisor_records import parse_survivors
from orchestrator.core.codec import CodecError, from_json
from orchestrator.core.errors import OrchestrateError, UsageError
from orchestrator.core.request import RunRequest
from orchestrator.edges.store.layout import RunFolder
from orchestrator.edges.transport.base import ConnectLimits
from orchestrator.engine.clock import SystemClock
from orchestrator.engine.node_hand import SWEEP_STEP
from orchestrator.engine.node_link import NodeLink
from orchestrator.engine.recorded import recall

SWEEP_S = 60.0
CLEAN_S = 300.0


@dataclass(frozen=True, slots=True)
class NodeVisit:
    """What came of one node: ``done`` or why not."""

    node: str
    done: bool
    detail: str


async def stop_run(folder: RunFolder) -> list[NodeVisit]:
    """End and verify whatever a run that is over still has on its nodes.

    Raises ``UsageError``, and ``InternalError`` for a damaged journal.
    """
    state = recall(folder, read_request(folder)).state
    claim = {"epoch": state.epoch + SWEEP_STEP, "token": state.request.token}
    return await _visit(folder, functools.partial(_sweep, claim=claim))


async def clean_run(folder: RunFolder) -> list[NodeVisit]:
    """Remove the run's directories from its nodes. Raises ``UsageError``."""
    return await _visit(folder, _clean)


async def _visit(
    folder: RunFolder, work: Callable[[NodeLink, str], Awaitable[NodeVisit]]
) -> list[NodeVisit]:
    request = read_request(folder)
    links = [
        NodeLink(
            spec,
            silence_s=request.budgets.silence_s,
            limits=ConnectLimits(),
            clock=SystemClock(),
        )
        for spec in request.cluster.workers
    ]
    return list(await asyncio.gather(*(_one(link, request.run_id, work) for link in links)))


async def _one(
    link: NodeLink, run_id: str, work: Callable[[NodeLink, str], Awaitable[NodeVisit]]
) -> NodeVisit:
    try:
        return await work(link, run_id)
    except (OrchestrateError, OSError, TimeoutError) as error:
        return NodeVisit(link.spec.name, False, str(error) or "it did not answer in time")
    finally:
        await link.close()


async def _sweep(link: NodeLink, run_id: str, *, claim: Mapping[str, object]) -> NodeVisit:
    fields = {"run": run_id, "node": link.spec.name, **claim}
    reply = await link.request("sweep", fields, timeout_s=SWEEP_S)
    left = parse_survivors(reply.fields.get("survivors"))
    killed = reply.fields.get("killed")
    count = len(killed) if isinstance(killed, list) else 0
    detail = f"still running: {', '.join(left)}" if left else f"clean, {count} processes ended"
    return NodeVisit(link.spec.name, reply.fields.get("clean") is True, detail)


async def _clean(link: NodeLink, run_id: str) -> NodeVisit:
    fields = {"run": run_id, "node": link.spec.name}
    reply = await link.request("clean", fields, timeout_s=CLEAN_S)
    removed = reply.fields.get("removed") is True
    return NodeVisit(link.spec.name, True, "removed" if removed else "nothing was there")


def read_request(folder: RunFolder) -> RunRequest:
    """What the run was asked to do. Raises ``UsageError`` when that cannot be read."""
    try:
        request = from_json(RunRequest, json.loads(folder.request.read_bytes()))
    except (OSError, ValueError, CodecError) as error:
        raise UsageError(
            f"the request of run {folder.run_id} cannot be read",
            id="OR-STORE-010",
            where=folder.request,
            why=str(error)[:300],
            remedy="orchestrate ps lists the runs that are known here",
        ) from error
    assert isinstance(request, RunRequest)
    return request
