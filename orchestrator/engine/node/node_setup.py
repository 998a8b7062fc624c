"""Before the plan: a node is connected, probed, cleared of earlier attempts, synced, prepared."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import replace

from orchestrator.adapters.agent_client.channel import AgentError
from orchestrator.adapters.sync.code_snapshot import Snapshot
from orchestrator.adapters.sync.push import push_snapshot
from orchestrator.core.run.events import Cleared, Connected, Event, Probed, Synced
from orchestrator.core.run.kit_reports import Reported
from orchestrator.engine.node.log_stream import Watcher
from orchestrator.engine.node.node_session import ABSENT, QUICK_S, NodeSession
from orchestrator.engine.node.python_environment import prepare
from orchestrator.engine.support.replay import read_positions
from orchestrator.parsing.replies.probe_reply import parse_facts
from orchestrator.parsing.replies.supervisor_records import parse_swept

CLEAR_S = 60.0


class NodeSetup:
    """All of it needs no plan and may be asked for again. Each method posts one event."""

    def __init__(self, session: NodeSession) -> None:
        self._session = session
        self._budgets = session.request.budgets
        self._began = session.context.clock.monotonic()

    async def connect_agent(self) -> None:
        """Raises what the link raises."""
        await self._session.link.open(self._budgets.connect_s)
        seconds = self._session.context.clock.monotonic() - self._began
        self._session.post(Connected(node=self._session.name, seconds=round(seconds, 3)))

    async def probe_facts(self) -> None:
        """One round trip: what the node has. Raises what the link raises, ``BadRecord``."""
        name, clock = self._session.name, self._session.context.clock
        asked = clock.wall()
        reply = await self._session.link.request("probe", timeout_s=self._budgets.probe_s)
        facts = parse_facts(name, reply.fields, asked=asked, answered=clock.wall())
        self._session.post(Probed(node=name, facts=facts))

    async def clear_attempts(self) -> None:
        """End what earlier attempts left: our own epoch fences theirs off, not ours. What their
        ranks wrote and reported after their link was lost comes home.
        """
        fields = self._session.fenced_fields()
        reply = await self._session.link.request("sweep", fields, timeout_s=CLEAR_S)
        swept = parse_swept(self._session.name, reply.fields)
        for attempt in range(1, self._session.attempt):
            await self._fetch_late_reports(attempt)
        cleared = Cleared(node=swept.node, clean=swept.clean, survivors=swept.survivors)
        self._session.post(cleared)

    async def _fetch_late_reports(self, attempt: int) -> None:
        session = self._session
        try:
            fields = {**session.lease_fields(), "attempt": attempt}
            await session.link.request("renew", fields, timeout_s=QUICK_S)
        except AgentError as error:
            if error.id == ABSENT:
                return
            raise
        read = await asyncio.to_thread(read_positions, session.context.folder, attempt)
        watcher = Watcher(
            session.link,
            attempt=attempt,
            context=session.context,
            post=functools.partial(self._post_late, attempt),
            clock_offset_s=0.0,
            positions={rank: at for (node, rank), at in read.items() if node == session.name},
        )
        async with asyncio.timeout(self._budgets.collect_s):
            await watcher.run()

    def _post_late(self, attempt: int, event: Event | BaseException) -> None:
        """Of an attempt that is over only its points count any more; our own troubles do."""
        if isinstance(event, Reported):
            self._session.post(replace(event, attempt=attempt))
        elif isinstance(event, BaseException):
            self._session.post(event)

    async def push_code(self, snapshot: Snapshot) -> None:
        """Send what the node lacks of ``snapshot``. Raises what the link raises."""
        link = self._session.link
        sent = await push_snapshot(link, snapshot, timeout_s=self._budgets.sync_s)
        self._session.post(
            Synced(
                node=self._session.name,
                digest=snapshot.digest,
                sent_files=sent.files,
                sent_bytes=sent.bytes,
            )
        )

    async def prepare_python(self) -> None:
        """The ranks' interpreter, and what it can import."""
        session = self._session
        session.post(await prepare(session.link, session.request, session.context))
