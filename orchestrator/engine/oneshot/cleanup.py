"""Going back to the nodes of a run without its coordinator: stop what is left, remove what it
stored.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from orchestrator.adapters.agent_client.channel import AgentError
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.base.codec import CodecError, from_json
from orchestrator.core.base.errors import InternalError, OrchestrateError, UsageError
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.model.request import RunRequest
from orchestrator.core.run.node_state import NodeState
from orchestrator.core.run.state import NEVER_LAUNCHED
from orchestrator.engine.node.link import NodeLink
from orchestrator.engine.node.node_session import SWEEP_STEP
from orchestrator.engine.oneshot.node_link import node_link
from orchestrator.engine.support.made_nodes import remove_made_nodes
from orchestrator.engine.support.replay import replay_journal
from orchestrator.parsing.replies.supervisor_records import parse_survivors

Named = Mapping[str, object]
Work = Callable[[NodeLink, Named], Awaitable["NodeVisit"]]
SWEEP_S = 60.0
CLEAN_S = 300.0
MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class NodeVisit:
    """What came of one node: ``done`` or why not; ``answered``: it was there to say so."""

    node: str
    done: bool
    detail: str
    answered: bool = True


async def stop_run(folder: RunFolder) -> list[NodeVisit]:
    """End and verify whatever a run that is over still has on its nodes.

    Raises ``UsageError``, and ``InternalError`` for a damaged journal.
    """
    request = read_request(folder)
    epoch = replay_journal(folder, request).state.epoch + SWEEP_STEP
    return await _visit(request, functools.partial(_sweep, epoch=epoch))


def kept_on_nodes(folder: RunFolder) -> list[str]:
    """Per node, the outputs that exist there alone. Raises ``UsageError``."""
    try:
        state = replay_journal(folder, read_request(folder)).state
    except InternalError as error:
        return [f"unknown whether its outputs were collected: {error.why or error.what}"]
    return [f"{name}: {what}" for name, node in state.nodes.items() if (what := _kept(node))]


def _kept(node: NodeState) -> str:
    if node.collected is not None:
        named = "; ".join(node.collected.left_out[:MAX_NAMED])
        more = "; ..." if node.collected.left > MAX_NAMED else ""
        left = node.collected.left
        return f"{left} of its outputs did not come: {named}{more}" if left else ""
    nothing = node.concluded is not None and node.concluded.why == NEVER_LAUNCHED
    return "its outputs were not collected" if node.launched and not nothing else ""


async def clean_run(folder: RunFolder) -> list[NodeVisit]:
    """Remove the run's directories from its nodes. Raises ``UsageError``."""
    return await _visit(read_request(folder), _clean)


async def _visit(request: RunRequest, work: Work) -> list[NodeVisit]:
    left = await remove_made_nodes(request)
    if left is not None:
        detail = f"not removed: {', '.join(left)}" if left else "nothing is left of what was made"
        return [
            NodeVisit(spec.name, not left, detail, answered=not left)
            for spec in request.cluster.workers
        ]
    return list(await asyncio.gather(*(_one(s, request, work) for s in request.cluster.workers)))


async def _one(spec: NodeSpec, request: RunRequest, work: Work) -> NodeVisit:
    named = {"run": request.run_id, "node": spec.name, "token": request.token}
    try:
        async with node_link(spec, request.budgets) as link:
            return await work(link, named)
    except AgentError as refusal:
        return NodeVisit(spec.name, False, str(refusal))
    except (OrchestrateError, OSError, TimeoutError) as error:
        why = str(error) or "it did not answer in time"
        return NodeVisit(spec.name, False, why, answered=False)


async def _sweep(link: NodeLink, named: Named, *, epoch: int) -> NodeVisit:
    reply = await link.request("sweep", {**named, "epoch": epoch}, timeout_s=SWEEP_S)
    left = parse_survivors(reply.fields.get("survivors"))
    killed = reply.fields.get("killed")
    count = len(killed) if isinstance(killed, list) else 0
    detail = f"still running: {', '.join(left)}" if left else f"clean, {count} processes ended"
    return NodeVisit(link.spec.name, reply.fields.get("clean") is True, detail)


async def _clean(link: NodeLink, named: Named) -> NodeVisit:
    reply = await link.request("clean", named, timeout_s=CLEAN_S)
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
