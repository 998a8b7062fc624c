"""The launch: locks are taken, the supervisor starts, and is asked to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from orchestrator.adapters.agent_client.channel import AgentError
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.plan import Lock, NodePlan
from orchestrator.core.planning.placing import rank_directory
from orchestrator.core.run.events import Launched, NodeConcluded, Occupied
from orchestrator.core.run.state import NEVER_LAUNCHED
from orchestrator.engine.node.node_session import ABSENT, QUICK_S, NodeSession, coordinator_name
from orchestrator.engine.node.requests import (
    agent_captures,
    agent_engine,
    agent_facts,
    agent_locks,
    agent_process,
)
from orchestrator.engine.node.trial_node import TrialPorts
from orchestrator.parsing.replies.supervisor_records import parse_holder

NO_SUPERVISOR = "none"  # the launch failed before there was one; nothing will conclude


class NodeLauncher:
    """What one node is asked for once there is a plan."""

    def __init__(self, session: NodeSession) -> None:
        self._session = session
        self._ports = TrialPorts(session.link)
        self._launching = asyncio.Lock()

    async def reserve_locks(self, locks: Sequence[Lock]) -> Occupied | None:
        """Take ``locks`` until the launch, or tell who has one of them."""
        fields = {
            **self._session.fenced_fields(),
            "locks": agent_locks(locks),
            "coordinator": coordinator_name(),
        }
        reply = await self._session.link.request("reserve", fields, timeout_s=QUICK_S)
        if reply.fields.get("reserved") is True:
            return None
        holder = parse_holder(reply.fields)
        return Occupied(node=self._session.name, holder=holder)

    async def release_locks(self) -> None:
        """Let go of what ``reserve_locks`` took."""
        fields = self._session.named_fields()
        await self._session.link.request("unreserve", fields, timeout_s=QUICK_S)

    async def launch_ranks(
        self, share: NodePlan, port: int | None, *, independent: bool, facts: Facts | None
    ) -> None:
        """Start the supervisor. ``port``: the rendezvous port to let go of first. ``independent``:
        a rank that fails does not end the node's other ones. ``facts``: what the probe found.
        """
        request = self._session.request
        budgets, own_code = request.budgets, request.job.workload.own_code
        async with self._launching:
            if port is not None:
                await self._ports.release(port)
            fields = {
                **self._session.lease_fields(),
                "grace_s": budgets.grace_s,
                "cwd": rank_directory(request.job.workload),
                "own_copy": own_code,
                "independent": independent,
                "snapshot": request.code,
                "locks": agent_locks(share.locks),
                "coordinator": coordinator_name(),
                "gpus": list(share.gpus),
                "captures": agent_captures(request.captures),
                "facts": agent_facts(facts),
                "engine": agent_engine(self._session.spec),
                "processes": [agent_process(share.env, process) for process in share.processes],
            }
            await self._session.link.request("launch", fields, timeout_s=budgets.launch_s)
        self._session.post(Launched(node=self._session.name))

    async def stop_ranks(self, grace_s: float) -> None:
        """Ask the supervisor to stop; a launch that is under way is waited for."""
        fields = {**self._session.fenced_fields(), "grace_s": grace_s}
        name = self._session.name
        async with self._launching:
            try:
                reply = await self._session.link.request("stop", fields, timeout_s=QUICK_S)
                never = reply.fields.get("supervisor") == NO_SUPERVISOR
            except AgentError as error:
                if error.id != ABSENT:
                    raise
                never = True
        if never:
            self._session.post(NodeConcluded(node=name, clean=True, why=NEVER_LAUNCHED))
            return
        # A coordinator that takes over may not know yet that there is something to follow.
        self._session.post(Launched(node=name))
