"""Ports for a trial: a node's agent accepts connections, or opens some to other nodes."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.adapters.agent_client.channel import AgentError
from orchestrator.adapters.agent_client.connect_agent import Requests
from orchestrator.parsing.replies.reach_records import TcpResult, parse_dialled

ABSENT = "OR-AGENT-ABSENT"
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
