"""Nodes that keep their snapshots in one place, on a shared file system, take turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """One turn at a time for each place."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def take(self, place: object, wait_s: float) -> AsyncIterator[bool]:
        """Whether another node had the turn before. ``place`` is the node's word; what is no name
        is a place of its own. After ``wait_s`` it is not waited for any longer.
        """
        if not isinstance(place, str) or not place:
            yield False
            return
        lock = self._locks.setdefault(place, asyncio.Lock())
        waited = lock.locked()
        try:
            async with asyncio.timeout(wait_s):
                await lock.acquire()
        except TimeoutError:
            yield True
            return
        try:
            yield waited
        finally:
            lock.release()
