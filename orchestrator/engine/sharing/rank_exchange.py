"""The two-way street between the coordinator and the ranks of one attempt, over SSH alone.

Ranks append lines to a file of their own; the watch brings them here, each byte once, and they stay
in the run's folder: what was heard before a crash of this process is read again by the next one.
Numbered feeds go the other way (``node_agent.attempt.feed``).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.run.state import RunState
from orchestrator.engine.node.collect_outputs import fetch_output
from orchestrator.engine.node.node_session import NodeSession
from orchestrator.parsing.replies.output_listing import OfferedOutput

MAX_LINE_BYTES = 4 * 1024 * 1024
READ_BYTES = 8 * 1024 * 1024
FEED_S = 600.0
# On a slow link a request must not keep others waiting for long: a lease is renewed between slices.
SLICE_BYTES = 4 * 1024 * 1024
_FILE = re.compile(r"exchange-(\d{1,7})\.jsonl")
_FOLDER = re.compile(r"attempt-([1-9]\d{0,4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRecord:
    """One line that a rank wrote for the coordinator, and where it lies here. Untrusted."""

    attempt: int
    node: str
    rank: int
    line: bytes
    path: Path = Path()
    offset: int = 0


class ExchangeReader:
    """Every line of every attempt that is on disk, in the order of each rank; each is told once."""

    def __init__(self, folder: RunFolder) -> None:
        self._root = folder.exchanges
        self._offsets: dict[Path, int] = {}

    def read(self) -> Iterator[RankRecord]:
        """What is new. Lines that are too long are told cut off, so that they fail to parse."""
        for path, attempt, node, rank in self._files():
            if path.stat().st_size == self._offsets.get(path, 0):
                continue
            for offset, line in self._lines(path):
                yield RankRecord(
                    attempt=attempt, node=node, rank=rank, line=line, path=path, offset=offset
                )

    def _lines(self, path: Path) -> Iterator[tuple[int, bytes]]:
        """What is new in one file, with where each line begins."""
        with path.open("rb") as file:
            offset = file.seek(self._offsets.get(path, 0))
            while chunk := file.read(READ_BYTES):
                end = chunk.rfind(b"\n") + 1
                if not end and len(chunk) < MAX_LINE_BYTES:
                    break
                whole = chunk[:end] if end else chunk
                file.seek(offset + len(whole))
                self._offsets[path] = offset + len(whole)
                for line in whole.removesuffix(b"\n").split(b"\n"):
                    yield offset, line
                    offset += len(line) + 1
                offset = self._offsets[path]

    def _files(self) -> Iterator[tuple[Path, int, str, int]]:
        if not self._root.is_dir():
            return
        for path in sorted(self._root.glob("*/attempt-*/exchange-*.jsonl")):
            folder, name = _FOLDER.fullmatch(path.parent.name), _FILE.fullmatch(path.name)
            if folder and name:
                yield path, int(folder[1]), path.parent.parent.name, int(name[1])


class RankFeeds:
    """What travels between the coordinator and the ranks of one node while they run."""

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


@dataclass(slots=True)
class Exchange:
    """What a service of one attempt needs: what ranks say, how to feed them, and how they are.

    ``state`` is the run's as of its latest event; ``changed`` is set after each event and each time
    that ranks said something, so that one wait covers both.
    """

    folder: RunFolder
    feeds: Mapping[str, RankFeeds]
    state: RunState
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, state: RunState) -> None:
        """The run moved on."""
        self.state = state
        self.changed.set()

    async def wait(self, timeout_s: float) -> bool:
        """Until something changed since the last wait; False when nothing did in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.changed.wait()
        except TimeoutError:
            return False
        self.changed.clear()
        return True

    async def feed(self, node: str, rank: int, number: int, content: bytes | Path) -> None:
        """Give ``content`` to ``rank`` as its ``number``-th feed: JSON from memory, or a file's
        bytes. Raises what links raise.
        """
        end = "json" if isinstance(content, bytes) else "bin"
        await self.feeds[node].feed_rank(rank, f"{number:08d}.{end}", content)

    async def fetch(self, node: str, name: str, size: int, sha256: str, target: Path) -> None:
        """Bring what a rank of ``node`` offers. Raises ``OrchestrateError``, ``OSError``."""
        await self.feeds[node].fetch_offered(name, size, sha256, target)


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
