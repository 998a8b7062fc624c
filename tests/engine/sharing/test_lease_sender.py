"""Feeds are numbered, in order, and none is lost when a coordinator takes over."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from orchestrator.core.base.errors import PreflightError
from orchestrator.core.sharing.leases import Worker
from orchestrator.core.sharing.sample_protocol import LeaseAck
from orchestrator.engine.sharing.lease_sender import LeaseSender, Message
from orchestrator.engine.sharing.rank_exchange import Exchange

WHO: Worker = ("n1", 3)


class Street:
    """An exchange that keeps what is fed, or fails."""

    def __init__(self) -> None:
        self.fed: list[tuple[int, bytes]] = []
        self.broken = False

    async def feed(self, node: str, rank: int, number: int, content: bytes | Path) -> None:
        assert (node, rank) == WHO
        assert isinstance(content, bytes)
        await asyncio.sleep(0)
        if self.broken:
            raise PreflightError("no sign of life", id="OR-LINK-001")
        self.fed.append((number, content))


class Both:
    """A feeder and what it told."""

    def __init__(self) -> None:
        self.street = Street()
        self.cut: list[Worker] = []
        self.feeder = LeaseSender(cast("Exchange", self.street), self._cut_off)

    def _cut_off(self, who: Worker, why: str) -> None:
        assert "no sign of life" in why
        self.cut.append(who)

    async def send(self, *words: Message) -> None:
        for word in words:
            self.feeder.send(WHO, word)
        for _ in range(50):
            await asyncio.sleep(0)
        self.feeder.check()


A, B, C = (Message(name, name.encode(), (number,)) for number, name in enumerate("abc"))


async def test_words_arrive_in_order() -> None:
    """Numbers from 1, one after the other; what was acknowledged is nobody's concern any more."""
    both = Both()
    await both.send(A, B)
    assert both.feeder.took(WHO, LeaseAck(1, "a", (0,))) == ([], ())
    await both.send(C)

    assert both.street.fed == [(1, b"a"), (2, b"b"), (3, b"c")]
    assert both.feeder.took(WHO, LeaseAck(2, "b", (1,))) == ([], ())
    assert both.feeder.took(WHO, LeaseAck(3, "c", (2,))) == ([], ())


async def test_after_a_takeover_numbers_go_on() -> None:
    """They follow what the worker has acknowledged to whomever."""
    both = Both()
    assert both.feeder.took(WHO, LeaseAck(7, "old", (4, 5))) == ([], (4, 5))
    await both.send(A)
    assert both.street.fed == [(8, b"a")]


async def test_a_feed_of_an_earlier_coordinator_may_be_first() -> None:
    """The worker took the old one just before ours replaced it: ours is lost, and its groups with
    it, while those of the old one are being worked on.
    """
    both = Both()
    await both.send(A)
    assert both.feeder.took(WHO, LeaseAck(1, "old", (9,))) == ([A], (9,))
    await both.send(A)
    assert both.street.fed[-1] == (2, b"a")


async def test_one_that_cannot_be_reached_is_told_once() -> None:
    """Nothing more is sent to it."""
    both = Both()
    both.street.broken = True
    await both.send(A, B)
    await both.send(C)

    assert both.cut == [WHO]
    assert both.street.fed == []
    await both.feeder.close()
