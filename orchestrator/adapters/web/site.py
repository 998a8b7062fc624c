"""What all pages share: the list of runs, the runs that are read, and who is told of changes."""

from __future__ import annotations

import asyncio

from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.web.overview.node_history import NodeHistory, NodeRow
from orchestrator.adapters.web.page_feed import Feed, Streams
from orchestrator.adapters.web.rendering import Rendering
from orchestrator.adapters.web.runs.live_runs import LiveRuns
from orchestrator.adapters.web.runs.run_index import FRESH_S, RunIndex
from orchestrator.adapters.web.settings import PageSettings

CHANGED = "changed"  # the part of the feed that says that a list is another one now


class Site:
    """Everything is read when a page asks; only the list of runs is read in between, and only
    while somebody looks at a list.
    """

    def __init__(self, layout: Layout, settings: PageSettings) -> None:
        self.layout = layout
        self.settings = settings
        self.rendering = Rendering()
        self.index = RunIndex(layout)
        self.live = LiveRuns(self.rendering.run_parts, self.rendering.log_lines)
        self.lists = Feed()
        self.streams = Streams()
        self._nodes = NodeHistory(layout)
        self._reading = asyncio.Lock()

    async def refresh(self) -> None:
        """Read the list of runs if that was some time ago."""
        if not self.index.is_stale():
            return
        async with self._reading:
            if self.index.is_stale() and await asyncio.to_thread(self.index.refresh):
                self.lists.publish({CHANGED: str(self.index.version)})

    async def watch_lists(self) -> None:
        """Keep the list fresh while it has readers; never ends."""
        while True:
            if self.streams.open:
                await self.refresh()
            await asyncio.sleep(FRESH_S)

    async def node_rows(self) -> tuple[NodeRow, ...]:
        """The nodes of the latest runs."""
        await self.refresh()
        async with self._reading:
            return await asyncio.to_thread(self._nodes.rows, self.index.runs)

    def find_folder(self, run_id: str) -> RunFolder | None:
        """The folder of a run that is on disk; None for any other text."""
        try:
            folder = self.layout.run(run_id)
        except ValueError:
            return None
        return folder if folder.path.is_dir() else None
