"""A look at the nodes over links of one's own: when ranks ended, and that nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from orchestrator.adapters.agent_client.channel import ChannelLost
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import OrchestrateError, PreflightError
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.model.plan import NodePlan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.run.state import RunState
from orchestrator.engine.drills.stage import within_seconds
from orchestrator.engine.node.link import NodeLink, NodeSilent
from orchestrator.engine.node.node_session import SWEEP_STEP
from orchestrator.engine.node.requests import agent_locks
from orchestrator.engine.support.clock import Clock
from orchestrator.engine.support.replay import replay_journal
from orchestrator.parsing.replies.supervisor_records import parse_swept

QUICK_S = 30.0
VISIT_S = 60.0
POLL_S = 0.2
BEYOND_LEASE_S = 30.0  # how much longer than their lease ranks are waited for


@dataclass(frozen=True, slots=True)
class Left:
    """What is ``wrong`` on a node, if anything is; ``unreachable``: nobody can tell."""

    node: str
    wrong: str = ""
    unreachable: bool = False


class Held(Enum):
    """Who has what the run had. If it is another run, ours let go of it."""

    BY_NOBODY = auto()
    BY_OTHERS = auto()
    BY_US = auto()


async def reach_all(request: RunRequest, clock: Clock) -> list[Left]:
    """The nodes that cannot be reached, and why."""

    async def greet(link: NodeLink) -> str:
        await link.open(request.budgets.connect_s)
        return ""

    visits = [_visit_node(spec, clock, greet) for spec in request.cluster.workers]
    return [left for left in await asyncio.gather(*visits) if left.wrong]


async def clear_up(folder: RunFolder, request: RunRequest, clock: Clock) -> list[Left]:
    """Look for processes and locks of the run on every node, remove its folder there, and tell
    what was found that should not have been.
    """
    state = replay_journal(folder, request).state
    shares = {share.name: share for share in (state.plan.nodes if state.plan else ())}

    async def clear(link: NodeLink) -> str:
        return await _clear_node(link, state, shares.get(link.spec.name))

    visits = (_visit_node(spec, clock, clear) for spec in request.cluster.workers)
    return [left for left in await asyncio.gather(*visits) if left.wrong]


async def wait_for_end(request: RunRequest, state: RunState, clock: Clock) -> float:
    """When the last node had ended its ranks by itself. Raises ``RunFailed`` if they go on, and
    what links raise.
    """
    used = {name for name, _ in state.planned()}
    specs = [spec for spec in request.cluster.workers if spec.name in used]
    async with within_seconds((request.budgets.lease_s or 0.0) + BEYOND_LEASE_S, "the ranks' end"):
        return max(await asyncio.gather(*(_ended_at(spec, request, clock) for spec in specs)))


async def _ended_at(spec: NodeSpec, request: RunRequest, clock: Clock) -> float:
    link = _make_link(spec, clock)
    try:
        while True:
            if not await _supervisor_lives(link, request.run_id):
                return clock.monotonic()
            await asyncio.sleep(POLL_S)
    finally:
        await link.close()


async def _supervisor_lives(link: NodeLink, run: str) -> bool:
    """Whether a supervisor of the node's share still runs; what is not understood does."""
    shares = await _node_shares(link, run)
    return shares is None or any(_is_alive(share) for share in shares)


def _is_alive(share: Mapping[str, Any]) -> bool:
    attempts = share.get("attempts")
    attempts = attempts if isinstance(attempts, list) else [{}]
    return any(not isinstance(a, dict) or a.get("supervisor") in (None, "alive") for a in attempts)


async def _node_shares(link: NodeLink, run: str) -> list[dict[str, Any]] | None:
    """What is there for this node of all that its machine has of ``run``; None: it makes no
    sense.
    """
    reply = await link.request("runs", {"run": run}, timeout_s=QUICK_S)
    runs = reply.fields.get("runs")
    if not isinstance(runs, list) or not all(isinstance(share, dict) for share in runs):
        return None
    return [share for share in runs if share.get("node") == link.spec.name]


def _make_link(spec: NodeSpec, clock: Clock) -> NodeLink:
    return NodeLink(spec, silence_s=QUICK_S, limits=ConnectLimits(attempts=2), clock=clock)


async def _visit_node(
    spec: NodeSpec, clock: Clock, work: Callable[[NodeLink], Awaitable[str]]
) -> Left:
    link = _make_link(spec, clock)
    try:
        async with asyncio.timeout(VISIT_S):
            return Left(spec.name, await work(link))
    except (PreflightError, ChannelLost, NodeSilent) as error:
        return Left(spec.name, f"cannot be reached: {error.why or error.what}", unreachable=True)
    except OrchestrateError as error:
        return Left(spec.name, error.what)
    except (OSError, TimeoutError) as error:
        return Left(spec.name, f"cannot be reached: {str(error) or 'no answer'}", unreachable=True)
    finally:
        await link.close()


async def _clear_node(link: NodeLink, state: RunState, share: NodePlan | None) -> str:
    named = {"run": state.request.run_id, "node": link.spec.name}
    fenced = {**named, "epoch": state.epoch + SWEEP_STEP, "token": state.request.token}
    gpus = list(share.gpus) if share else []
    wrong = ["its supervisor still ran"] if await _supervisor_lives(link, named["run"]) else []
    reply = await link.request("sweep", {**fenced, "gpus": gpus}, timeout_s=VISIT_S)
    swept = parse_swept(link.spec.name, reply.fields)
    if swept.killed or not swept.clean:
        wrong.append(f"{swept.killed + len(swept.survivors)} processes were left")
    if share is not None:
        held = await _lock_holders(link, {**fenced, "locks": agent_locks(share.locks)})
        if held is Held.BY_US:
            wrong.append("its locks are still held")
        if held is Held.BY_NOBODY and swept.gpu_drained is False:
            wrong.append("GPU memory was not freed")
    await link.request("clean", named, timeout_s=VISIT_S)
    if await _node_shares(link, named["run"]) != []:
        wrong.append("its folder is still there")
    return "; ".join(wrong)


async def _lock_holders(link: NodeLink, wanted: dict[str, object]) -> Held:
    """Who has the run's locks now, found out by taking them and giving them back."""
    reply = await link.request("reserve", wanted, timeout_s=QUICK_S)
    if reply.fields.get("reserved") is True:
        named = {"run": wanted["run"], "node": wanted["node"]}
        await link.request("unreserve", named, timeout_s=QUICK_S)
        return Held.BY_NOBODY
    holder = reply.fields.get("holder")
    run = holder.get("run") if isinstance(holder, dict) else None
    return Held.BY_OTHERS if run not in (None, wanted["run"]) else Held.BY_US
