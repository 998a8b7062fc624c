"""The connections that a broker holds: each for one command at once, then for a time for the next.

A connection is lent again only if it serves as a new one would: made for the same key, not too long
ago, and answered by its server unless it was in use a moment before. After the machine has slept
none is.
"""

from __future__ import annotations

import asyncio
import itertools
import shlex
import time
from collections.abc import Callable, Coroutine
from typing import Any

from orchestrator.adapters.private_sockets import awake_and_asleep_s
from orchestrator.adapters.transport.asyncssh.async_ssh_links import Links, SshLink
from orchestrator.adapters.transport.broker.relay import is_alive
from orchestrator.adapters.transport.ssh.handshakes import Handshakes
from orchestrator.adapters.transport.ssh.target import Target
from orchestrator.adapters.transport.transport import ConnectLimits

ALIVE_S = 2.0  # so long a server may take for a sign of life
FRESH_S = 1.0  # so long after its use a connection is taken to live; a container is back in two
MOST_WAITING = 4  # of one key: a server counts each as a login, and may allow a user few
MOST_AGE_S = 12 * 3600.0
SLEPT_S = 5.0
IDLE_KEEPALIVE_S = 60.0
LOOKS = 20  # times in a connection's time that it is looked whether it is over
LEAST_PAUSE_S, MOST_PAUSE_S = 0.2, 15.0


class PooledConnection:
    """One connection, lent or waiting. ``since``: wall clock, in seconds."""

    def __init__(self, name: str, key: str, target: Target, link: SshLink, made_s: float) -> None:
        self.name = name
        self.key = key
        self.words = shlex.join(target.endpoint.argv)
        self.link = link
        self.since = time.time()
        self.made_s = made_s
        self.used_s = made_s
        self.keep_s = 0.0
        self.lent = True

    @property
    def connection(self) -> Any:
        return self.link.connection

    def record(self) -> dict[str, Any]:
        """For ``connections list``."""
        return {"name": self.name, "words": self.words, "since": self.since, "in_use": self.lent}


class Pool:
    """``clock`` goes on while the machine sleeps, ``awake`` does not; both in seconds."""

    def __init__(
        self,
        clock: Callable[[], float] = awake_and_asleep_s,
        awake: Callable[[], float] = time.monotonic,
    ) -> None:
        self.kept: list[PooledConnection] = []
        self._clock, self._awake = clock, awake
        self._asleep_s = clock() - awake()
        self._links: dict[ConnectLimits, Links] = {}
        self._numbers = itertools.count(1)
        self._returning: dict[str, set[asyncio.Future[None]]] = {}
        self._errands: set[asyncio.Task[None]] = set()

    async def lend(
        self, key: str, target: Target, limits: ConnectLimits, keep_s: float
    ) -> PooledConnection:
        """One that waits, or a new one. Raises ``PreflightError`` and ``UsageError``."""
        while returning := self._returning.get(key):
            if self._find(key):
                break
            await asyncio.wait(list(returning), return_when=asyncio.FIRST_COMPLETED)
        while (kept := self._find(key)) is not None:
            kept.lent = True
            try:
                serves = await self._serves(kept)
            except BaseException:  # the command went away meanwhile: nobody would give it back
                self._drop(kept)
                raise
            if serves:
                break
            self._drop(kept)
        else:
            kept = await self._connect(key, target, limits)
        kept.keep_s = keep_s
        kept.connection.set_keepalive(limits.keepalive_interval_s, limits.keepalive_count)
        return kept

    def _find(self, key: str) -> PooledConnection | None:
        self.drop_over()
        waiting = (kept for kept in self.kept if kept.key == key and not kept.lent)
        return max(waiting, key=lambda kept: kept.used_s, default=None)

    async def _serves(self, kept: PooledConnection) -> bool:
        if self._clock() - kept.used_s < FRESH_S:
            return not kept.connection.is_closed()
        return await is_alive(kept.connection, ALIVE_S)

    async def _connect(self, key: str, target: Target, limits: ConnectLimits) -> PooledConnection:
        links = self._links.setdefault(limits, Links(Handshakes(limits)))
        link = await links.open(target, limits)
        name = f"{key}-{next(self._numbers)}"
        kept = PooledConnection(name, key, target, link, self._clock())
        self.kept.append(kept)
        return kept

    async def take_back(self, kept: PooledConnection, left: Coroutine[Any, Any, bool]) -> None:
        """The command is gone; ``left`` says whether the connection is good for another one."""
        returned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._returning.setdefault(kept.key, set()).add(returned)
        try:
            try:
                good = await left
            except BaseException:
                self._drop(kept)
                raise
            kept.used_s = self._clock()
            waiting = sum(each.key == kept.key and not each.lent for each in self.kept)
            if not good or not kept.keep_s or waiting >= MOST_WAITING:
                self._drop(kept)
                return
            kept.lent = False
            kept.connection.set_keepalive(IDLE_KEEPALIVE_S, 1)
        finally:
            returned.set_result(None)
            self._returning[kept.key].discard(returned)
            if not self._returning[kept.key]:
                del self._returning[kept.key]

    def drop_over(self) -> None:
        """End the waiting connections that are not to be lent again."""
        now = self._clock()
        asleep_s = now - self._awake()
        slept = asleep_s - self._asleep_s > SLEPT_S
        self._asleep_s = asleep_s
        for kept in [kept for kept in self.kept if not kept.lent]:
            over = now - kept.used_s >= kept.keep_s or now - kept.made_s >= MOST_AGE_S
            if slept or over or kept.connection.is_closed():
                self._drop(kept)

    def close(self, names: set[str] | None) -> list[str]:
        """End those called so; None: all that wait. One that is lent ends when its command does.
        The names of those that have ended.
        """
        closed = []
        for kept in [kept for kept in self.kept if names is None or kept.name in names]:
            if not kept.lent:
                closed.append(kept.name)
                self._drop(kept)
            elif names is not None:
                kept.keep_s = 0
        return closed

    def pause_s(self) -> float:
        """When to look again whether something is over."""
        shortest = min((kept.keep_s for kept in self.kept if not kept.lent), default=0.0)
        return min(max(shortest / LOOKS, LEAST_PAUSE_S), MOST_PAUSE_S)

    def _drop(self, kept: PooledConnection) -> None:
        if kept not in self.kept:
            return
        self.kept.remove(kept)
        closing = asyncio.ensure_future(kept.link.close())
        self._errands.add(closing)
        closing.add_done_callback(self._errands.discard)

    async def end(self) -> None:
        """End all connections, those that are lent, too."""
        for kept in list(self.kept):
            self._drop(kept)
        if self._errands:
            await asyncio.wait(self._errands)
