"""Measures what an exchange of gradients takes, where nodes ask for that before they begin, and
gives all of them the same answer. The decision is in ``core.sharing.exchange_choice``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.adapters.rounds.outer_optimizer import OuterState
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.sharing.exchange_choice import (
    FEED_CHOICE,
    ExchangeChoice,
    NodeTrial,
    choose_exchange,
)
from orchestrator.engine.sharing.rank_exchange import Exchange
from orchestrator.engine.support.context import RunContext


class ExchangeTrial:
    """One attempt. ``speakers``: the rank of each node that speaks for it, in rank order."""

    def __init__(
        self,
        exchange: Exchange,
        context: RunContext,
        outer: OuterState,
        speakers: Mapping[str, int],
    ) -> None:
        self._exchange = exchange
        self._context = context
        self._outer = outer
        self._attempt = exchange.state.attempt
        self._speakers = speakers
        self._trials: dict[str, NodeTrial] = {}
        self._answered: set[str] = set()

    def hear(self, node: str, trial: NodeTrial) -> None:
        """A node asks; what it says again changes nothing."""
        self._trials.setdefault(node, trial)

    @property
    def awaited(self) -> bool:
        """Whether nodes wait for the answer."""
        return bool(self._trials) and not self._answered

    async def look(self, living: Sequence[str]) -> None:
        """Answer once all that live have asked. What was chosen is on disk before any node hears of
        it: a coordinator that takes over gives the same answer. Raises ``OSError``.
        """
        asking = [node for node in living if node in self._trials]
        if self._answered.issuperset(asking) or len(asking) < len(living):
            return
        choice = await asyncio.to_thread(self._outer.load_choice, self._attempt)
        if choice is None:
            choice = await self._measured_choice(asking)
            await asyncio.to_thread(self._outer.save_choice, self._attempt, choice)
        self._answered |= set(asking)
        words = json.dumps(_words_of(choice)).encode()
        await asyncio.gather(*(self._feed(node, words) for node in asking))

    async def _measured_choice(self, nodes: Sequence[str]) -> ExchangeChoice:
        clock = self._context.clock
        began = clock.monotonic()
        await asyncio.to_thread(self._outer.prepare)
        fetched = await asyncio.gather(*map(self._fetch, nodes))
        there = [node for node, came in zip(nodes, fetched, strict=True) if came]
        await asyncio.gather(*(self._give_back(node) for node in there))
        sample_s = clock.monotonic() - began
        return choose_exchange([self._trials[node] for node in there or nodes], sample_s)

    async def _fetch(self, node: str) -> bool:
        """Whether its sample came; a node that cannot give it is lost, or will say so."""
        file = self._trials[node].file
        try:
            target = self._outer.part(0, self._speakers[node])
            await self._exchange.fetch(node, file.name, file.bytes, file.sha256, target)
        except OrchestrateError as error:
            self._context.note(f"{node}: its sample of a gradient did not come: {error}")
            return False
        return True

    async def _give_back(self, node: str) -> None:
        await self._feed(node, self._outer.part(0, self._speakers[node]))

    async def _feed(self, node: str, content: bytes | Path) -> None:
        try:
            await self._exchange.feed(node, self._speakers[node], FEED_CHOICE, content)
        except OrchestrateError as error:
            self._context.note(f"{node} cannot be given the choice of what to exchange: {error}")


def _words_of(choice: ExchangeChoice) -> dict[str, object]:
    return {
        "type": "exchange",
        "exchanged": choice.exchanged.value,
        "exchange_s": choice.exchange_s,
        "step_s": choice.step_s,
    }
