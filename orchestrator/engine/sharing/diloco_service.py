"""Local rounds: nodes have no collectives between them, and what they learn is put together here.

    join    every node tells what it could begin with; the newest is what all begin with
    round   nodes train; each offers what its parameters changed by, or its part of a step's
            gradient; we average, or sum, and give everybody the same update
    end     after the last round all nodes must have the same parameters

Feeds have fixed numbers (``core.sharing.rounds``), and what was decided is on disk before
anybody is told, so a coordinator that takes over repeats the last words and goes on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from orchestrator.adapters.rounds.outer_optimizer import Contribution, Kept, OuterState
from orchestrator.adapters.rounds.parameter_files import size_of
from orchestrator.core.base.errors import OrchestrateError, RunFailed
from orchestrator.core.run.events import RoundClosed
from orchestrator.core.sharing.rounds import (
    FEED_PARAMETERS,
    FEED_START,
    Exchanged,
    Part,
    Terms,
    choose_start,
    feed_number,
    first_shares,
    merge_curves,
    next_shares,
    outer_step,
    weights_of,
)
from orchestrator.engine.sharing.rank_exchange import Exchange, ExchangeReader
from orchestrator.engine.sharing.round_inbox import RoundInbox, RoundReports, living
from orchestrator.engine.sharing.round_parts import LOOK_EVERY_S, RoundParts
from orchestrator.engine.support.clock import Clock
from orchestrator.engine.support.context import Post, RunContext

JOIN_S = 1800.0
END_S = 300.0
# Rounds of single steps are many: of those in which nothing happened so few are told.
TELL_EVERY_S = 2.0
FLOAT_BYTES = 4


class DilocoService:
    """One attempt. Imports numpy with its arithmetic: only where it is needed."""

    def __init__(self, exchange: Exchange, context: RunContext, post: Post) -> None:
        plan = exchange.state.plan
        assert plan is not None
        self._exchange = exchange
        self._context = context
        self._post = post
        self._clock: Clock = context.clock
        self._attempt = exchange.state.attempt
        self._speakers = {share.name: share.ranks[0] for share in plan.nodes}
        self._index = {share.name: share.node_rank for share in plan.nodes}
        self._ranks = {share.name: len(share.ranks) for share in plan.nodes}
        reader = ExchangeReader(context.folder)
        self._hearing = RoundInbox(reader, self._attempt, self._speakers, context.note)
        self._outer = OuterState(context.folder.work / "rounds")
        self._parts = RoundParts(exchange, self._hearing, self._outer, self._index, context)
        self._tasks: set[asyncio.Task[None]] = set()
        self._fed: set[int] = set()  # rounds whose update every node has
        self._next_feed = FEED_START
        self._told_at: float | None = None  # when a round was told of, and who was missing then
        self._told_missing: tuple[str, ...] = ()

    async def serve(self) -> None:
        kept = await self._begin()
        if kept is None:
            return
        terms = self._hearing.told.joined[kept.participants[0]].terms
        first = terms.round_after(kept.start)
        for number in self._outer.updates():
            if number <= kept.round:
                self._publish(number, first, kept, None)
        while kept.round < terms.last_round and self._alive(kept):
            closed = await self._round(kept, terms, first)
            if closed is None:
                return
            kept = closed
        await self._end(kept, feed_number(kept.round, first) + 1)

    async def fail_groups(self, why: str) -> None:
        """Tell every node; whoever cannot be told finds out by waiting."""
        told = json.dumps({"type": "over", "why": why[:2000]}).encode()
        feeds = (self._feed(node, self._next_feed, told) for node in living(self._exchange.state))
        await asyncio.gather(*feeds)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- the beginning ---------------------------------------------------------------------------

    async def _begin(self) -> Kept | None:
        """Where the attempt stands: begun by now, or by an earlier coordinator."""
        kept = await asyncio.to_thread(self._outer.load)
        told = await asyncio.to_thread(self._hearing.listen)
        if kept is None or kept.attempt != self._attempt:
            return await self._start()
        if any(node not in told.joined for node in kept.participants):
            raise _failed("the nodes' initial reports are missing")
        first = told.joined[kept.participants[0]].terms.round_after(kept.start)
        if kept.round < first and not await self._tell_start(kept):
            raise _failed("the node with the latest checkpoint was lost while others waited for it")
        self._next_feed = feed_number(kept.round + 1, first)
        return kept

    async def _start(self) -> Kept | None:
        while joined := await self._joined():
            try:
                start = choose_start(joined)
            except ValueError as error:
                raise _failed(f"the nodes cannot train together: {error}") from error
            terms = joined[start.source].terms
            before = terms.round_after(start.step) - 1
            shares = first_shares({node: self._ranks[node] for node in joined})
            row = tuple(shares.get(name, 0.0) for name in self._index)
            kept = Kept(
                attempt=self._attempt,
                start=start.step,
                participants=tuple(joined),
                round=before,
                step=start.step,
                values=terms.values,
                shares={before + 1: row, before + 2: row},
            )
            await asyncio.to_thread(self._outer.begin, kept)
            if await self._tell_start(kept):
                self._next_feed = feed_number(before + 1, before + 1)
                return kept
        return None

    async def _joined(self) -> dict[str, Any]:
        """Every living node, once all have joined; those that have when the others take too long.
        Empty: nobody is left.
        """
        since: float | None = None
        while True:
            told = await asyncio.to_thread(self._hearing.listen)
            alive = living(self._exchange.state)
            joined = {node: told.joined[node] for node in alive if node in told.joined}
            if len(joined) == len(alive):
                return joined
            since = since or (self._clock.monotonic() if joined else None)
            if since is not None and self._clock.monotonic() - since > JOIN_S:
                return joined
            await self._exchange.wait(LOOK_EVERY_S)

    async def _tell_start(self, kept: Kept) -> bool:
        """Give the parameters of the newest step to those that lack them, and let all begin.
        False: who had them is lost before anybody else was told.
        """
        joined = {node: self._hearing.told.joined[node] for node in kept.participants}
        start = choose_start(joined)
        words = {"type": "start", "step": kept.start, "shares": _listed(kept.shares)}
        words |= {"sha256": joined[start.source].sha256, "reports": self._reporter(kept)}
        words |= {"ranks": list(self._ranks.values())}
        if start.needing:
            asked = {**words, "offer": True, "needs": False}
            await self._feed(start.source, FEED_START, json.dumps(asked).encode())
            if not await self._fetch_parameters(kept, start.source):
                return False
        feeds = []
        for node in kept.participants:
            if node == start.source and start.needing:
                continue
            needs = node in start.needing
            if needs:
                feeds.append(self._feed(node, FEED_PARAMETERS, self._outer.parameters))
            told = json.dumps({**words, "offer": False, "needs": needs}).encode()
            feeds.append(self._feed(node, FEED_START, told))
        await asyncio.gather(*feeds)
        return True

    async def _fetch_parameters(self, kept: Kept, source: str) -> bool:
        while source in living(self._exchange.state):
            told = await asyncio.to_thread(self._hearing.listen)
            offer = told.offered.get(source)
            if offer is None:
                await self._exchange.wait(LOOK_EVERY_S)
                continue
            if offer.bytes < FLOAT_BYTES * kept.values:
                raise _failed(f"{source} offers {offer.bytes} bytes as its parameters")
            await self._exchange.fetch(
                source, offer.name, offer.bytes, offer.sha256, self._outer.parameters
            )
            return True
        return False

    # ---- a round ---------------------------------------------------------------------------------

    async def _round(self, kept: Kept, terms: Terms, first: int) -> Kept | None:
        """Wait for the parts of the next round, close it and let everybody know. None: nobody is
        left to train.
        """
        number = kept.round + 1
        began, parts = await self._parts.gather(number, kept, terms, lambda: self._alive(kept))
        missing = [node for node in kept.participants if node not in parts]
        if not parts:
            if self._alive(kept):
                raise _failed(f"no part of round {number} was acceptable")
            return None
        told = self._hearing.told
        rows = next_shares(
            dict(zip(self._index, kept.shares[number + 1], strict=True)),
            self._alive(kept),
            told.paces,
            terms,
        )
        shares = tuple(rows.get(name, 0.0) for name in self._index)
        kept = replace(
            kept,
            round=number,
            step=terms.end_of(number),
            shares={number + 1: kept.shares[number + 1], number + 2: shares},
        )
        await asyncio.to_thread(self._close, kept, terms, parts)
        self._hearing.forget(number)
        self._next_feed = feed_number(number + 1, first)
        size = sum(part.file.bytes for part in parts.values())
        closed = RoundClosed(
            round=number,
            step=kept.step,
            weights=tuple((node, part.rows) for node, part in parts.items()),
            missing=tuple(missing),
            bytes=size + len(self._alive(kept)) * size_of(terms.compression, terms.values),
            exchanged=terms.exchanged,
        )
        should_report = self._is_worth_telling(closed, terms)
        self._publish(number, first, kept, (closed, began) if should_report else None)
        return kept

    def _is_worth_telling(self, closed: RoundClosed, terms: Terms) -> bool:
        now = self._clock.monotonic()
        many = terms.exchanged is Exchanged.GRADIENTS and closed.round < terms.last_round
        recent = self._told_at is not None and now - self._told_at < TELL_EVERY_S
        if many and recent and closed.missing == self._told_missing:
            return False
        self._told_at, self._told_missing = now, closed.missing
        return True

    def _close(self, kept: Kept, terms: Terms, parts: Mapping[str, Part]) -> None:
        weights = weights_of(terms, {node: part.rows for node, part in parts.items()})
        contributions = [
            Contribution(file=self._outer.part(kept.round, self._index[node]), weight=weight)
            for node, weight in weights.items()
        ]
        rate, momentum = outer_step(terms)
        curve = merge_curves([part.curve for part in parts.values()])
        header = {
            "round": kept.round,
            "step": kept.step,
            "included": [self._index[node] for node in parts],
            "shares": _listed(kept.shares),
            "reports": self._reporter(kept),
            "curve": [asdict(told) for told in curve],
            "compression": terms.compression,
            "values": terms.values,
        }
        try:
            self._outer.close(
                kept,
                contributions,
                header,
                compression=terms.compression,
                rate=rate,
                momentum=momentum,
            )
        except ValueError as error:
            raise _failed(f"round {kept.round}: {error}") from error

    def _publish(
        self, number: int, first: int, kept: Kept, closed: tuple[RoundClosed, float] | None
    ) -> None:
        """Give a round's update to every living node, in the background."""
        task = asyncio.create_task(self._give(number, first, self._alive(kept), closed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _give(
        self, number: int, first: int, nodes: list[str], closed: tuple[RoundClosed, float] | None
    ) -> None:
        update = self._outer.update(number)
        await asyncio.gather(
            *(self._feed(node, feed_number(number, first), update) for node in nodes)
        )
        self._fed.add(number)
        done = self._fed - {max(self._fed)}
        await asyncio.to_thread(self._outer.forget_updates, sorted(done))
        if closed is not None:
            event, began = closed
            seconds = round(self._clock.monotonic() - began, 3)
            self._post(replace(event, seconds=seconds))

    # ---- the end ---------------------------------------------------------------------------------

    async def _end(self, kept: Kept, number: int) -> None:
        """All nodes that are left must have the same parameters; they wait to hear that."""
        self._next_feed = number
        told = await self._ended(kept)
        digests = {
            node: told.ended[node].sha256 for node in kept.participants if node in told.ended
        }
        if len(set(digests.values())) > 1:
            found = ", ".join(f"{node} {digest[:12]}" for node, digest in digests.items())
            raise _failed(f"the nodes ended with different parameters: {found}")
        words = json.dumps({"type": "verdict", "reports": self._reporter(kept)}).encode()
        await asyncio.gather(*(self._feed(node, number, words) for node in self._alive(kept)))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ended(self, kept: Kept) -> RoundReports:
        since: float | None = None
        while True:
            told = await asyncio.to_thread(self._hearing.listen)
            waiting = [node for node in self._alive(kept) if node not in told.ended]
            since = since or (self._clock.monotonic() if told.ended else None)
            if not waiting or (since is not None and self._clock.monotonic() - since > END_S):
                return told
            await self._exchange.wait(LOOK_EVERY_S)

    # ---- nodes -----------------------------------------------------------------------------------

    def _alive(self, kept: Kept) -> list[str]:
        return [node for node in living(self._exchange.state) if node in kept.participants]

    def _reporter(self, kept: Kept) -> int:
        """The one node that tells what came of the training, for all."""
        alive = self._alive(kept) or list(kept.participants)
        return self._index[alive[0]]

    async def _feed(self, node: str, number: int, content: bytes | Path) -> None:
        """A node that cannot be fed is lost, or will say so: the watch sees it too."""
        try:
            await self._exchange.feed(node, self._speakers[node], number, content)
        except (OrchestrateError, OSError) as error:
            self._context.note(f"{node} cannot be given feed {number}: {error}")


def _listed(shares: Mapping[int, tuple[float, ...]]) -> dict[str, list[float]]:
    return {str(number): list(row) for number, row in shares.items()}


def _failed(why: str) -> RunFailed:
    return RunFailed(
        "local-round training cannot continue",
        id="OR-ROUND-001",
        why=why,
        remedy="see orchestrate logs; resume --retry continues from the last checkpoint",
    )
