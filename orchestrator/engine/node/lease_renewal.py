"""A node's lease in one attempt: who coordinates it, and that whoever does is still there."""

from __future__ import annotations

import asyncio

from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.run.state import RunState
from orchestrator.engine.node.link import NodeLink
from orchestrator.engine.support.context import Post
from orchestrator.engine.support.problems import superseded_error

# How an agent refuses requests of a coordinator that another one has followed.
FENCED = "OR-AGENT-FENCED"
RENEWALS_PER_LEASE = 4
RENEW_EVERY_S = 30.0
LET_GO_S = 0.1
LET_GO_POLL_S = 0.2
LET_GO_TIMEOUT_S = 30.0


class NodeLease:
    """While it is kept, the node's ranks run; without news of us they end by themselves."""

    def __init__(self, node: str, link: NodeLink, state: RunState, post: Post) -> None:
        self._node = node
        self._link = link
        self._run = state.request.run_id
        self._token = state.request.token
        self._seconds = state.request.budgets.lease_s
        self._attempt = state.attempt
        self._epoch = state.epoch
        self._post = post
        self._renewing: asyncio.Task[None] | None = None

    def named(self) -> dict[str, object]:
        """Which attempt a request is about."""
        return {"run": self._run, "node": self._node, "attempt": self._attempt}

    def fenced(self, later: int = 0) -> dict[str, object]:
        """And who asks. ``later`` than this epoch is what nothing else we asked for passes."""
        return {**self.named(), "epoch": self._epoch + later, "token": self._token}

    def terms(self) -> dict[str, object]:
        """And for how long it holds."""
        return {**self.fenced(), "lease_s": self._seconds}

    async def renew(self) -> None:
        """Raises ``AgentError`` when the node knows nothing of the attempt."""
        await self._link.request("renew", self.terms(), timeout_s=self._seconds or RENEW_EVERY_S)

    def keep(self) -> None:
        """Renew it from now on, for as long as the coordinator lives."""
        self._renewing = asyncio.create_task(self._keep_renewing())

    def leave(self) -> None:
        """Renew it no more."""
        if self._renewing is not None:
            self._renewing.cancel()

    async def detach(self) -> None:
        """Let the ranks end now, as if it had run out, and wait until they have; those without a
        lease go on.
        """
        self.leave()
        fields = {**self.fenced(), "lease_s": LET_GO_S}
        alive = self._seconds is not None
        while alive:
            reply = await self._link.request("renew", fields, timeout_s=LET_GO_TIMEOUT_S)
            alive = reply.fields.get("supervisor") == "alive"
            await asyncio.sleep(LET_GO_POLL_S)

    async def close(self) -> None:
        """Never raises."""
        self.leave()
        if self._renewing is not None:
            await asyncio.gather(self._renewing, return_exceptions=True)

    async def _keep_renewing(self) -> None:
        every_s = RENEW_EVERY_S if self._seconds is None else self._seconds / RENEWALS_PER_LEASE
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.renew()
            except OrchestrateError as error:
                # The watch sees the same broken link and decides; a lease that runs out is safe.
                if error.id == FENCED:
                    self._post(superseded_error(self._run, error))
