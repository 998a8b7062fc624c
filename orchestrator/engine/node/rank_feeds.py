"""What travels between the coordinator and a rank while it runs: numbered feeds, offered files."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from orchestrator.engine.node.collect_outputs import fetch_output
from orchestrator.engine.node.node_session import NodeSession
from orchestrator.parsing.replies.output_listing import OfferedOutput

FEED_S = 600.0
# On a slow link a request must not keep others waiting for long: a lease is renewed between slices.
SLICE_BYTES = 4 * 1024 * 1024


class RankFeeds:
    """Those of one node's ranks."""

    def __init__(self, session: NodeSession) -> None:
        self._session = session

    async def feed_rank(self, rank: int, name: str, content: bytes | Path) -> None:
        """Give ``content``, bytes or a file, to a rank, under a name that it will ask for. Raises
        what the link raises, ``OSError``.
        """
        digest = await asyncio.to_thread(_sha256_of, content)
        feed = {"rank": rank, "name": name, "sha256": digest}
        async for offset, total, part in _slices_of(content):
            fields = {**self._session.fenced_fields(), **feed, "offset": offset, "total": total}
            link = self._session.link
            await link.request("feed", fields, timeout_s=FEED_S, payload=part)

    async def fetch_offered(self, name: str, size: int, sha256: str, target: Path) -> None:
        """Bring what a rank offers to ``target``; complete and verified, or not there.

        Raises ``OrchestrateError``, ``OSError``.
        """
        area = {**self._session.named_fields(), "area": "exchange"}
        await fetch_output(self._session.link, area, OfferedOutput(name, size, sha256), target)


def _sha256_of(content: bytes | Path) -> str:
    """The digest in hexadecimal. Raises ``OSError``."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def _slices_of(content: bytes | Path) -> AsyncIterator[tuple[int, int, bytes]]:
    """(offset, size of the whole, bytes), in order, at least one. Raises ``OSError``."""
    if isinstance(content, bytes):
        yield 0, len(content), content
        return
    total = (await asyncio.to_thread(content.stat)).st_size
    with content.open("rb") as file:
        for offset in range(0, max(total, 1), SLICE_BYTES):
            yield offset, total, await asyncio.to_thread(file.read, SLICE_BYTES)
