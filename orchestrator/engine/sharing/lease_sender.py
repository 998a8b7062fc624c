"""Numbered feeds to workers: each in order, each acknowledged, known again after a takeover."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.sharing.leases import Worker
from orchestrator.core.sharing.sample_protocol import LeaseAck
from orchestrator.engine.sharing.rank_exchange import Exchange


@dataclass(frozen=True, slots=True)
class Message:
    """Something for one worker: a lease of ``groups``, or another word, such as the end."""

    id: str
    content: bytes
    groups: tuple[int, ...] = ()


@dataclass(slots=True)
class _Lane:
    """One worker's feeds. ``last`` was sent by us, ``taken`` was acknowledged, by whomever sent."""

    waiting: deque[Message] = field(default_factory=deque)
    sent: dict[int, Message] = field(default_factory=dict)
    last: int = 0
    taken: int = 0
    task: asyncio.Task[None] | None = None
    cut: bool = False


class LeaseSender:
    """Feeds for all workers of one attempt, side by side. ``cut`` hears whom none reaches."""

    def __init__(self, exchange: Exchange, cut: Callable[[Worker, str], None]) -> None:
        self._exchange = exchange
        self._cut = cut
        self._lanes: dict[Worker, _Lane] = {}

    def send(self, worker: Worker, word: Message) -> None:
        """In the order of the calls; nothing to a worker that is cut off."""
        lane = self._lanes.setdefault(worker, _Lane())
        if lane.cut:
            return
        lane.waiting.append(word)
        if lane.task is None or lane.task.done():
            lane.task = asyncio.create_task(self._run(worker, lane))

    def took(self, worker: Worker, record: LeaseAck) -> tuple[list[Message], tuple[int, ...]]:
        """(words of ours that the worker will never see, groups that an earlier coordinator gave).

        The worker may have taken a feed of an earlier coordinator just before ours replaced it.
        """
        lane = self._lanes.setdefault(worker, _Lane())
        lane.taken = max(lane.taken, record.feed)
        past = [number for number in lane.sent if number <= record.feed]
        words = {number: lane.sent.pop(number) for number in past}
        mine = words.get(record.feed)
        if mine is not None and mine.id == record.lease:
            del words[record.feed]
            return list(words.values()), ()
        return list(words.values()), record.groups

    def check(self) -> None:
        """Raises what a bug of ours raised in a task."""
        for lane in self._lanes.values():
            if lane.task is not None and lane.task.done() and not lane.task.cancelled():
                lane.task.result()

    async def close(self) -> None:
        """Feed nobody any more."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, worker: Worker, lane: _Lane) -> None:
        node, rank = worker
        while lane.waiting:
            word = lane.waiting.popleft()
            number = lane.last = max(lane.last, lane.taken) + 1
            lane.sent[number] = word  # it may be taken before we are told that it arrived
            try:
                await self._exchange.feed(node, rank, number, word.content)
            except (OrchestrateError, TimeoutError, OSError) as error:
                lane.cut = True  # links come back by themselves: this one did not
                lane.waiting.clear()
                self._cut(worker, str(error).splitlines()[0])
                return
