"""The watch over links in mid-run: nodes dial each other, and a word to the machine when links that
worked stay broken while no rank makes progress.

Only time-outs and unreachable hosts count: who refuses a connection is there. What a node cannot be
asked about, because its own SSH link is broken or it does not answer, is unknown.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.fabric.connection_matrix import peers_to_dial
from orchestrator.core.fabric.fabric_verdict import Link
from orchestrator.core.fabric.probe_world import probe_addresses
from orchestrator.core.model.plan import Plan
from orchestrator.core.run.connectivity import LinksBroken
from orchestrator.core.run.events import Event
from orchestrator.core.run.kit_reports import Progressed, Reported
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.result import Result
from orchestrator.engine.support.clock import Clock
from orchestrator.parsing.replies.reach_records import TcpResult
from orchestrator.parsing.replies.supervisor_records import BadRecord

# So few connections are a few packets per node and round, whatever the number of nodes.
ALL_PAIRS = 8
MOST_PEERS = 4
ROUNDS_PER_LIMIT = 5
MIN_ROUND_S, MAX_ROUND_S = 0.5, 3.0
NODES_PER_S = 60
DIAL_S = 2.0
ANSWER_S = 4.0

Tell = Callable[[Event], None]
Answer = TypeVar("Answer")


class TcpDialer(Protocol):
    """What the watch needs of a node."""

    @property
    def broken(self) -> bool: ...

    def listen(self) -> Awaitable[int]: ...

    def dial(
        self, targets: Sequence[tuple[str, int]], timeout_s: float
    ) -> Awaitable[list[TcpResult]]: ...


class LinkWatchdog:
    """An observer of one run that posts ``LinksBroken``. ``nodes`` are those of the attempt."""

    def __init__(
        self,
        state: RunState,
        clock: Clock,
        tell: Tell,
        nodes: Callable[[], Mapping[str, TcpDialer]],
    ) -> None:
        self._state = state
        self._clock = clock
        self._tell = tell
        self._nodes = nodes
        self._limit_s = state.request.budgets.link_s
        # The watch's own clock stands still while nobody looks.
        self._now = 0.0
        self._looked_at = math.inf
        self._progress = 0.0
        self._forget()

    def _forget(self) -> None:
        self._ports: dict[str, int] = {}
        self._proven: set[Link] = set()
        self._since: dict[Link, float] = {}

    # ---- what is heard --------------------------------------------------------------------------

    def on_event(self, at: float, event: Event, state: RunState) -> None:
        del at
        if state.attempt != self._state.attempt:
            self._forget()
        self._state = state
        if isinstance(event, Progressed | Reported):
            self._progress = self._now

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        del node, chunk
        if file.startswith("rank-"):
            self._progress = self._now

    def on_note(self, text: str) -> None:
        del text

    def close(self, result: Result | None) -> None:
        del result

    # ---- what follows from it -------------------------------------------------------------------

    async def run(self) -> None:
        """Look again and again for as long as the run lasts; whoever began it cancels it."""
        while self._limit_s is not None:
            await asyncio.sleep(self.every_s)
            await self.look()

    @property
    def every_s(self) -> float:
        """Between two rounds: often enough for the limit, seldom enough for many nodes."""
        wanted = (self._limit_s or 0.0) / ROUNDS_PER_LIMIT
        wanted = min(MAX_ROUND_S, max(MIN_ROUND_S, wanted))
        return max(wanted, len(self._state.nodes) / NODES_PER_S)

    async def look(self) -> None:
        """One round, if there is something to watch."""
        watched = self._watched()
        if watched is None or self._limit_s is None:
            self._looked_at, self._since = math.inf, {}
            return
        began = self._advance()
        self._judge(await self._dial_all(watched), began, self._limit_s)

    def _watched(self) -> Plan | None:
        """The plan, while all its ranks run on several machines that are to meet."""
        state, plan = self._state, self._state.plan
        if plan is None or not plan.meets or plan.rendezvous is None or state.halted:
            return None
        hosts = {node.facts.host_id for _, node in state.planned() if node.facts is not None}
        up = all(node.launched and node.concluded is None for _, node in state.planned())
        return plan if up and len(hosts) > 1 else None

    def _advance(self) -> float:
        """Move the watch's clock on by the time in which somebody looked; what it is now."""
        now = self._clock.monotonic()
        elapsed = max(0.0, now - self._looked_at)
        self._now += min(elapsed, self.every_s + ANSWER_S)
        self._looked_at = now
        return self._now

    async def _dial_all(self, plan: Plan) -> dict[Link, TcpResult]:
        """What came of every connection whose two ends can be asked."""
        present = self._nodes()
        nodes = {share.name: present[share.name] for share in plan.nodes}
        asked = {name: node for name, node in nodes.items() if not node.broken}
        await asyncio.gather(
            *(self._listen(name, node) for name, node in asked.items() if name not in self._ports)
        )
        at = probe_addresses(plan, self._state.planned_facts())
        wanted = {
            name: [end for end in ends if end in self._ports and end in asked]
            for name, ends in peers_to_dial(list(nodes), ALL_PAIRS, MOST_PEERS).items()
        }
        parts = await asyncio.gather(
            *(
                self._dial(name, node, {end: (at[end], self._ports[end]) for end in wanted[name]})
                for name, node in asked.items()
            )
        )
        return {
            link: result
            for part in parts
            for link, result in part.items()
            if not nodes[link[1]].broken
        }

    async def _listen(self, name: str, node: TcpDialer) -> None:
        port = await _answer_in_time(node.listen())
        if port is not None:
            self._ports[name] = port

    async def _dial(
        self, name: str, node: TcpDialer, targets: Mapping[str, tuple[str, int]]
    ) -> dict[Link, TcpResult]:
        if not targets:
            return {}
        results = await _answer_in_time(node.dial(list(targets.values()), DIAL_S))
        return {(name, end): r for end, r in zip(targets, results or (), strict=False)}

    def _judge(self, found: Mapping[Link, TcpResult], began: float, limit_s: float) -> None:
        """Count on for links that are still broken, and forget those that work. What a busy node
        does not answer in time leaves its links as they were: they may be declared broken only once
        it answers again.
        """
        works = {link for link, result in found.items() if result.ok or result.refused}
        self._proven |= works
        failed = [link for link in found if link not in works and link in self._proven]
        unknown = {link: since for link, since in self._since.items() if link not in found}
        self._since = {**unknown, **{link: self._since.get(link, began) for link in failed}}
        quiet_s = began - self._progress
        broken_s = {link: began - self._since[link] for link in failed}
        lasting = {link: s for link, s in broken_s.items() if min(s, quiet_s) >= limit_s}
        if lasting and self._watched() is not None:
            seconds = round(max(lasting.values()), 1)
            self._since = {}
            self._tell(LinksBroken(links=tuple(lasting), seconds=seconds, at=self._clock.wall()))


async def _answer_in_time(asked: Awaitable[Answer]) -> Answer | None:
    """The node's answer in time, or None."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await asked
    except (OrchestrateError, OSError, TimeoutError, BadRecord):
        return None
