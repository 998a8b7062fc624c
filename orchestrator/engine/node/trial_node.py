"""Between plan and launch: a node takes part in trials of the network; nothing of them is left."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.adapters.agent_client.channel import AgentError
from orchestrator.adapters.agent_client.connect_agent import Requests
from orchestrator.core.model.plan import ProcessPlan, Variable
from orchestrator.core.run.connectivity import Reached, RendezvousOffered
from orchestrator.engine.node.node_session import ABSENT, QUICK_S, NodeSession
from orchestrator.engine.node.requests import agent_engine, agent_process
from orchestrator.parsing.replies.reach_records import TcpResult, parse_dialled
from orchestrator.parsing.replies.trial_records import TriedProcess, parse_trial

DIAL_S = 5.0
ASK_S = 30.0


class TrialPorts:
    """Those of one node. All of it raises what the node's channel or link raises."""

    def __init__(self, asked: Requests) -> None:
        self._asked = asked

    async def listen(self) -> int:
        """Let the node's agent accept connections; the port."""
        reply = await self._asked.request("listen", timeout_s=ASK_S)
        port = reply.fields.get("port")
        if type(port) is not int or not 0 < port < 65536:
            raise OSError(f"{self._asked.node} offered no port")
        return port

    async def release(self, port: int) -> bool:
        """End what ``listen`` began; False: an agent that replaced that one knows nothing of it."""
        try:
            await self._asked.request("release", {"port": port}, timeout_s=ASK_S)
        except AgentError as error:
            if error.id != ABSENT:
                raise
            return False
        return True

    async def dial(self, targets: Sequence[tuple[str, int]], timeout_s: float) -> list[TcpResult]:
        """What came of opening a connection to each of ``targets`` from the node."""
        fields = {"targets": [list(target) for target in targets], "timeout_s": timeout_s}
        reply = await self._asked.request("dial", fields, timeout_s=ASK_S)
        return parse_dialled(reply.fields, len(targets))


class TrialNode(TrialPorts):
    """Ports that are listened on and dialled, and processes that run to their end."""

    def __init__(self, session: NodeSession) -> None:
        super().__init__(session.link)
        self._session = session

    @property
    def broken(self) -> bool:
        """Whether the link was there and is gone."""
        return self._session.link.broken

    async def offer_rendezvous(self) -> None:
        """As the head: listen where the others are to meet."""
        self._session.post(RendezvousOffered(node=self._session.name, port=await self.listen()))

    async def reach_head(self, addresses: Sequence[str], port: int) -> None:
        """Dial all addresses of the head; which of them answered, and through which interface."""
        results = await self.dial([(address, port) for address in addresses], DIAL_S)
        good = [(a, r) for a, r in zip(addresses, results, strict=True) if r.ok]
        self._session.post(
            Reached(
                node=self._session.name,
                addresses=tuple(address for address, _ in good),
                via=tuple(result.local for _, result in good),
                errors=tuple(result.error for result in results if not result.ok),
            )
        )

    async def run_trial(
        self, name: str, processes: Sequence[ProcessPlan], env: Sequence[Variable], within_s: float
    ) -> tuple[TriedProcess, ...]:
        """Run ``processes`` to their end, for at most ``within_s``; nothing of them is left."""
        fields = {
            **self._session.fenced_fields(),
            "trial": name,
            "deadline_s": within_s,
            "snapshot": self._session.request.code or None,
            "engine": agent_engine(self._session.link.spec),
            "processes": [agent_process(env, process) for process in processes],
        }
        timeout_s = within_s + QUICK_S
        reply = await self._session.link.request("trial", fields, timeout_s=timeout_s)
        return parse_trial(reply.payload, within_s)

    async def end_trial(self, name: str) -> None:
        """Let it end now; whoever waits for ``run_trial`` gets its end."""
        await self._session.link.request("end_trial", {"trial": name}, timeout_s=QUICK_S)
