"""Runs that somebody looks at: each is read once, however many browsers show it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.web.page_feed import Feed
from orchestrator.adapters.web.runs.live_log import LogLine
from orchestrator.adapters.web.runs.run_follower import RunFollower
from orchestrator.adapters.web.runs.run_view import RunPageView

POLL_S = 1.0
BEHIND_POLL_S = 0.25  # while there is much to read
OVER_POLL_S = 5.0  # of a run that has ended: it may be resumed
LINGER_S = 30.0  # after the last reader has gone, who may only have reloaded the page
MAX_FOLLOWED = 64

RenderParts = Callable[[RunPageView], Mapping[str, str]]
RenderLines = Callable[[Sequence[LogLine]], Sequence[str]]


class LiveRun:
    """A run whose page is kept up to date in ``feed`` while it has readers."""

    def __init__(self, folder: RunFolder, parts: RenderParts, lines: RenderLines) -> None:
        self.feed = Feed()
        self._follower = RunFollower(folder)
        self._parts = parts
        self._lines = lines
        self._readers = 0
        self._used = time.monotonic()
        self._turn = asyncio.Lock()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._follower.over

    @property
    def wanted(self) -> bool:
        """Whether somebody reads it, or did lately."""
        return self._readers > 0 or time.monotonic() - self._used < LINGER_S

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While somebody reads the feed."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            self._used = time.monotonic()

    async def update(self) -> None:
        """Read what is new, and publish it."""
        async with self._turn:
            parts, lines = await asyncio.to_thread(self._read)
            self.feed.publish(parts, lines)

    async def follow(self) -> None:
        """Until it has no readers any more."""
        while self.wanted:
            await self.update()
            behind = self._follower.behind
            await asyncio.sleep(BEHIND_POLL_S if behind else OVER_POLL_S if self.over else POLL_S)

    def _read(self) -> tuple[Mapping[str, str], Sequence[str]]:
        changed, lines = self._follower.advance()
        first = not self.feed.parts
        parts = self._parts(self._follower.view()) if changed or first else {}
        return parts, self._lines(lines)


class LiveRuns:
    """The runs that are read now, by id."""

    def __init__(self, parts: RenderParts, lines: RenderLines) -> None:
        self._parts = parts
        self._lines = lines
        self._runs: dict[str, LiveRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, folder: RunFolder) -> LiveRun:
        """The run, after a first look at it. Beyond ``MAX_FOLLOWED`` it is read this once only."""
        run = self._runs.get(folder.run_id)
        if run is None:
            run = LiveRun(folder, self._parts, self._lines)
            if len(self._runs) < MAX_FOLLOWED:
                self._follow(folder.run_id, run)
        with run.reading():
            if not run.feed.parts:
                await run.update()
        return run

    def follows(self, run: LiveRun) -> bool:
        """Whether what ``open`` returned is kept up to date."""
        return run in self._runs.values()

    def _follow(self, run_id: str, run: LiveRun) -> None:
        self._runs[run_id] = run
        task = asyncio.create_task(run.follow())
        self._tasks.add(task)

        def forget(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            del self._runs[run_id]

        task.add_done_callback(forget)
