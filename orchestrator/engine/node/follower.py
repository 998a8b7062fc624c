"""After the launch: a node's supervisor is followed, its ranks inspected, its outputs collected,
and what is left swept away.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from orchestrator.adapters.agent_client.channel import AgentError
from orchestrator.adapters.store.atomic_files import make_private_dir
from orchestrator.core.run.evidence import Inspected
from orchestrator.core.run.state import RunState, kernel_may_know
from orchestrator.engine.node.collect_outputs import collect_outputs
from orchestrator.engine.node.lease_renewal import NodeLease
from orchestrator.engine.node.log_stream import Watcher
from orchestrator.engine.node.node_session import QUICK_S, SWEEP_STEP, NodeSession
from orchestrator.parsing.replies.supervisor_records import parse_swept

KERNEL_LOG = "kernel.out"


class NodeFollower:
    """``exchanged`` is called when more of what ranks exchange with us is on disk."""

    def __init__(self, session: NodeSession, exchanged: Callable[[], None]) -> None:
        self._session = session
        self._exchanged = exchanged
        self._lease = NodeLease(session)
        self._began = session.context.clock.monotonic()
        self._watches: list[RunningWatch] = []
        self.sweeping = False

    async def follow_ranks(self, state: RunState) -> None:
        """Watch the supervisor from where our copy of its logs ends, and keep its lease alive."""
        await self._begin_watch(state)
        self._lease.keep_renewed()

    async def _begin_watch(self, state: RunState) -> RunningWatch:
        """Raises ``AgentError`` when the node knows nothing of the attempt."""
        await self._lease.renew_once()
        name = self._session.name
        facts = state.nodes[name].facts
        positions = {rank: at for (node, rank), at in state.positions.items() if node == name}
        watch = RunningWatch(
            Watcher(
                self._session.link,
                attempt=self._session.attempt,
                context=self._session.context,
                post=self._session.post,
                clock_offset_s=facts.clock_offset_s if facts else 0.0,
                positions=positions,
                exchanged=self._exchanged,
            )
        )
        self._watches.append(watch)
        return watch

    async def inspect_ranks(self, stall: int) -> Inspected:
        """Look at the node's ranks; what was found goes into the run's folder."""
        from orchestrator.engine.node.hang_inspection import look_at  # with a schema library

        session = self._session
        folder = session.context.folder.node_hang(session.name, session.attempt)
        fields, note = session.named_fields(), session.context.note
        found = await look_at(session.link, fields, folder, note)
        return Inspected(node=session.name, stall=stall, inspection=found)

    async def detach_ranks(self) -> None:
        """Let the ranks end now, and wait until they have; those without a lease go on."""
        await self._lease.let_expire()

    async def collect_attempt(self, state: RunState) -> None:
        """Wait until every log byte is here, then pull the outputs."""
        session = self._session
        watch = self._watches[-1] if self._watches else await self._begin_watch(state)
        await watch.watcher.drained()
        if kernel_may_know(state):
            await self._fetch_kernel_log()
        session.post(
            await collect_outputs(
                session.link,
                session.request.run_id,
                session.attempt,
                session.context.folder,
                timeout_s=session.request.budgets.collect_s,
            )
        )

    async def _fetch_kernel_log(self) -> None:
        """What the node's kernel said meanwhile may explain a failure; not every node tells it."""
        session = self._session
        since_s = session.context.clock.monotonic() - self._began + QUICK_S
        with contextlib.suppress(AgentError):
            reply = await session.link.request("kernel", {"since_s": since_s}, timeout_s=QUICK_S)
            if reply.payload:
                path = session.context.folder.log(session.name, KERNEL_LOG, session.attempt)
                make_private_dir(path.parent)
                await asyncio.to_thread(path.write_bytes, reply.payload)

    async def sweep_attempt(self, state: RunState) -> None:
        """End and verify what is left; from then on the node refuses what we asked for before."""
        session = self._session
        self.sweeping = True
        self._lease.stop_renewing()  # or our own fence would look like somebody else's
        gpus = state.plan.node(session.name).gpus if state.plan else ()
        fields = {**session.fenced_fields(later=SWEEP_STEP), "gpus": list(gpus)}
        timeout_s = session.request.budgets.clean_s
        reply = await session.link.request("sweep", fields, timeout_s=timeout_s)
        session.post(parse_swept(session.name, reply.fields))

    async def close(self) -> None:
        """End watch and lease. Bounded, never raises."""
        for watch in self._watches:
            watch.task.cancel()
        await asyncio.gather(*(watch.task for watch in self._watches), return_exceptions=True)
        await self._lease.close()


class RunningWatch:
    """A watcher that runs."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.task = asyncio.create_task(watcher.run())
