"""Serves local rounds: reads what nodes report, asks ``core.sharing.round_machine`` what follows,
and does it. Clocks, files, feeds and arithmetic are here; every decision is there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from orchestrator.adapters.rounds.outer_optimizer import Contribution, OuterState
from orchestrator.adapters.rounds.parameter_files import size_of
from orchestrator.core.base.errors import OrchestrateError, RunFailed
from orchestrator.core.base.outcome import has_succeeded
from orchestrator.core.run.events import RoundClosed
from orchestrator.core.run.state import RunState
from orchestrator.core.sharing.exchange_choice import FEED_CHOICE, NodeTrial
from orchestrator.core.sharing.round_machine import new_round_state, step
from orchestrator.core.sharing.round_protocol import (
    CloseRound,
    EndService,
    Fail,
    FeedParameters,
    FeedWords,
    FetchParameters,
    FetchPart,
    Heard,
    LivingSeen,
    Look,
    ParametersFetched,
    PartFetched,
    PublishUpdate,
    RoundAction,
    RoundEvent,
    RoundSaved,
    RoundState,
    RoundSummary,
    SaveStart,
    StartSaved,
)
from orchestrator.core.sharing.rounds import FEED_PARAMETERS, outer_step
from orchestrator.engine.sharing.exchange_trial import ExchangeTrial
from orchestrator.engine.sharing.rank_exchange import Exchange, ExchangeReader
from orchestrator.engine.support.context import Post, RunContext
from orchestrator.parsing.replies.round_records import parse_told

LOOK_EVERY_S = 1.0
MAX_COMPLAINTS = 20


class DilocoService:
    """One attempt. Imports numpy with its arithmetic: only where it is needed."""

    def __init__(self, exchange: Exchange, context: RunContext, post: Post) -> None:
        plan = exchange.state.require_plan()
        self._exchange = exchange
        self._context = context
        self._post = post
        self._attempt = exchange.state.attempt
        self._speakers = {share.name: share.ranks[0] for share in plan.nodes}
        self._index = {share.name: share.node_rank for share in plan.nodes}
        self._ranks = {share.name: len(share.ranks) for share in plan.nodes}
        self._reader = ExchangeReader(context.folder)
        self._outer = OuterState(context.folder.work / "rounds")
        self._trial = ExchangeTrial(exchange, context, self._outer, self._speakers)
        self._state = new_round_state(self._attempt, self._ranks, None, ())
        self._feeding: set[asyncio.Task[None]] = set()
        self._fetching: dict[int, set[asyncio.Task[None]]] = {}  # by round; 0 = parameters
        self._fetched: asyncio.Queue[RoundEvent | BaseException] = asyncio.Queue()
        self._fed: set[int] = set()  # rounds whose update every node has
        self._complaints = 0
        self._over = False

    async def serve(self) -> None:
        """From what is on disk to the end. Raises ``OrchestrateError``, ``OSError``."""
        self._state = await asyncio.to_thread(self._recall_state)
        while not self._over:
            for event in await asyncio.to_thread(self._read_reports):
                await self._take_event(event)
            while not self._fetched.empty():
                await self._take_event(_raised_or_event(self._fetched.get_nowait()))
            alive = living(self._exchange.state)
            await self._trial.look(alive)
            await self._take_event(LivingSeen(tuple(alive)))
            before = self._state
            await self._take_event(Look())
            if self._state is before and not self._over:
                await self._exchange.wait(LOOK_EVERY_S)
        await asyncio.gather(*self._feeding, return_exceptions=True)

    async def fail_nodes(self, why: str) -> None:
        """Tell every node; whichever cannot be told finds out by waiting."""
        words = {"type": "over", "why": why[:2000]}
        nodes = living(self._exchange.state)
        number = FEED_CHOICE if self._trial.awaited else self._state.next_feed
        await asyncio.gather(*(self._feed_words(FeedWords(n, number, words)) for n in nodes))

    async def close(self) -> None:
        """End what is under way. Never raises."""
        tasks = [*self._feeding, *(task for tasks in self._fetching.values() for task in tasks)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- what happens ---------------------------------------------------------------------------

    def _recall_state(self) -> RoundState:
        kept, updates = self._outer.load(), tuple(self._outer.updates())
        return new_round_state(self._attempt, self._ranks, kept, updates)

    def _read_reports(self) -> list[RoundEvent]:
        """What the first rank of each node told in the present attempt, as far as it is new."""
        events: list[RoundEvent] = []
        for line in self._reader.read():
            if line.attempt != self._attempt or self._speakers.get(line.node) != line.rank:
                continue
            said = parse_told(line.line)
            if isinstance(said, NodeTrial):
                self._trial.hear(line.node, said)
                continue
            if not isinstance(said, str):
                events.append(Heard(line.node, said))
                continue
            self._complaints += 1
            if self._complaints <= MAX_COMPLAINTS:
                self._context.note(f"{line.node} told {said}")
        return events

    async def _take_event(self, event: RoundEvent) -> None:
        now = self._context.clock.monotonic()
        self._state, actions = step(self._state, event, now)
        for action in actions:
            await self._perform(action)

    # ---- what is done ---------------------------------------------------------------------------

    async def _perform(self, action: RoundAction) -> None:
        match action:
            case SaveStart(kept=kept):
                await asyncio.to_thread(self._outer.begin, kept)
                await self._take_event(StartSaved())
            case FeedWords():
                self._feed_soon(self._feed_words(action))
            case FeedParameters(node=node):
                self._feed_soon(self._feed(node, FEED_PARAMETERS, self._outer.parameters))
            case FetchParameters():
                self._fetch_soon(0, self._fetch_parameters(action))
            case FetchPart(part=part):
                self._fetch_soon(part.round, self._fetch_part(action))
            case CloseRound(kept=kept):
                for task in self._fetching.pop(kept.round, ()):
                    task.cancel()
                await asyncio.to_thread(self._close_round, action)
                await self._take_event(RoundSaved())
            case PublishUpdate():
                self._feed_soon(self._publish_update(action))
            case Fail(why=why):
                raise _failed(why)
            case EndService():
                self._over = True

    def _close_round(self, action: CloseRound) -> None:
        kept, terms = action.kept, action.terms
        contributions = [
            Contribution(file=self._outer.part(kept.round, self._index[node]), weight=weight)
            for node, weight in action.weights.items()
        ]
        rate, momentum = outer_step(terms)
        try:
            self._outer.close(
                kept,
                contributions,
                action.header,
                compression=terms.compression,
                rate=rate,
                momentum=momentum,
            )
        except ValueError as error:
            raise _failed(f"round {kept.round}: {error}") from error

    # ---- what nodes give ------------------------------------------------------------------------

    def _fetch_soon(self, number: int, fetch: Coroutine[Any, Any, RoundEvent]) -> None:
        async def fetched() -> None:
            try:
                self._fetched.put_nowait(await fetch)
            except Exception as error:  # noqa: BLE001 - raised where the service runs
                self._fetched.put_nowait(error)
            self._exchange.changed.set()

        self._fetching.setdefault(number, set()).add(asyncio.create_task(fetched()))

    async def _fetch_parameters(self, action: FetchParameters) -> RoundEvent:
        offer, target = action.offer, self._outer.parameters
        await self._exchange.fetch(action.node, offer.name, offer.bytes, offer.sha256, target)
        return ParametersFetched()

    async def _fetch_part(self, action: FetchPart) -> RoundEvent:
        """Fetch a part and check it. Raises ``OSError``: a full disk here is no node's fault."""
        node, part, terms = action.node, action.part, action.terms
        file = part.file
        target = self._outer.part(part.round, self._index[node])
        try:
            if file.bytes != size_of(terms.compression, terms.values):
                raise ValueError(f"it has {file.bytes} bytes")
            await self._exchange.fetch(node, file.name, file.bytes, file.sha256, target)
            await asyncio.to_thread(self._outer.check, target, terms.compression, terms.values)
        except (OrchestrateError, ValueError) as error:
            self._context.note(f"{node}: its part in round {part.round} does not count: {error}")
            return PartFetched(part.round, node, counts=False)
        return PartFetched(part.round, node, counts=True)

    # ---- what nodes get -------------------------------------------------------------------------

    def _feed_soon(self, feed: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(feed)
        self._feeding.add(task)
        task.add_done_callback(self._feeding.discard)

    async def _feed_words(self, action: FeedWords) -> None:
        await self._feed(action.node, action.number, json.dumps(action.words).encode())

    async def _feed(self, node: str, number: int, content: bytes | Path) -> None:
        """A node that cannot be fed is lost, or will say so: the watch sees it too."""
        try:
            await self._exchange.feed(node, self._speakers[node], number, content)
        except (OrchestrateError, OSError) as error:
            self._context.note(f"{node} cannot be given feed {number}: {error}")

    async def _publish_update(self, action: PublishUpdate) -> None:
        update = self._outer.update(action.round)
        await asyncio.gather(*(self._feed(n, action.number, update) for n in action.nodes))
        self._fed.add(action.round)
        done = self._fed - {max(self._fed)}
        await asyncio.to_thread(self._outer.forget_updates, sorted(done))
        if action.summary is not None:
            self._report_round(action, action.summary)

    def _report_round(self, action: PublishUpdate, summary: RoundSummary) -> None:
        size = size_of(action.terms.compression, action.terms.values)
        self._post(
            RoundClosed(
                round=summary.round,
                step=summary.step,
                weights=tuple(summary.rows.items()),
                missing=summary.missing,
                bytes=summary.part_bytes + len(action.nodes) * size,
                exchanged=summary.exchanged,
                seconds=round(self._context.clock.monotonic() - summary.began, 3),
            )
        )


def living(state: RunState) -> list[str]:
    """The nodes of the plan that still work, in rank order."""
    failed = {e.node for e in state.endings if not has_succeeded(e.outcome)}
    return [
        name
        for name, node in state.planned()
        if not (node.lost or node.problem or node.concluded or node.halting or name in failed)
    ]


def _raised_or_event(item: RoundEvent | BaseException) -> RoundEvent:
    if isinstance(item, BaseException):
        raise item
    return item


def _failed(why: str) -> RunFailed:
    return RunFailed(
        "local-round training cannot continue",
        id="OR-ROUND-001",
        why=why,
        remedy="see orchestrate logs; resume --retry continues from the last checkpoint",
    )
