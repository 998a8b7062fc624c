"""A node's lease in one attempt: the heartbeat of its coordinator."""

from __future__ import annotations

import asyncio

from orchestrator.core.base.errors import OrchestrateError
from orchestrator.engine.node.node_session import FENCED, NodeSession
from orchestrator.engine.support.problems import superseded_error

RENEWALS_PER_LEASE = 4
RENEW_EVERY_S = 30.0
LET_GO_S = 0.1
LET_GO_POLL_S = 0.2
LET_GO_TIMEOUT_S = 30.0


class NodeLease:
    """While it is renewed, the node's ranks run; without news of us they end by themselves."""

    def __init__(self, session: NodeSession) -> None:
        self._session = session
        self._seconds = session.request.budgets.lease_s
        self._renewals: set[asyncio.Task[None]] = set()

    async def renew_once(self) -> None:
        """Raises ``AgentError`` when the node knows nothing of the attempt."""
        fields, timeout_s = self._session.lease_fields(), self._seconds or RENEW_EVERY_S
        await self._session.link.request("renew", fields, timeout_s=timeout_s)

    def keep_renewed(self) -> None:
        """From now on, for as long as the coordinator lives."""
        self._renewals.add(asyncio.create_task(self._renew_forever()))

    def stop_renewing(self) -> None:
        """From now on it runs out."""
        for task in self._renewals:
            task.cancel()

    async def let_expire(self) -> None:
        """Let the ranks end now, as if it had run out, and wait until they have; those without a
        lease go on.
        """
        self.stop_renewing()
        fields = {**self._session.fenced_fields(), "lease_s": LET_GO_S}
        alive = self._seconds is not None
        while alive:
            link = self._session.link
            reply = await link.request("renew", fields, timeout_s=LET_GO_TIMEOUT_S)
            alive = reply.fields.get("supervisor") == "alive"
            await asyncio.sleep(LET_GO_POLL_S)

    async def close(self) -> None:
        """Never raises."""
        self.stop_renewing()
        await asyncio.gather(*self._renewals, return_exceptions=True)

    async def _renew_forever(self) -> None:
        every_s = RENEW_EVERY_S if self._seconds is None else self._seconds / RENEWALS_PER_LEASE
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.renew_once()
            except OrchestrateError as error:
                # The watch sees the same broken link and decides; a lease that runs out is safe.
                if error.id == FENCED:
                    self._session.post(superseded_error(self._session.request.run_id, error))
