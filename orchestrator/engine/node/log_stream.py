"""Follows one node's supervisor: its records become events, its log bytes land on disk, gap-free.

A watch begins at the byte where the last one ended, so a broken link costs nothing but time.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.adapters.agent_client.channel import AgentEvent, ChannelLost
from orchestrator.adapters.store.atomic_files import make_private_dir
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.base.problem import Problem
from orchestrator.core.launchers import SCHEDULERS
from orchestrator.core.run.events import Failed, NodeLost, Phase
from orchestrator.engine.node.link import NodeGone, NodeLink
from orchestrator.engine.support.context import Post, RunContext
from orchestrator.engine.support.problems import problem_of
from orchestrator.parsing.replies.kit_records import MAX_LINE_BYTES, parse_report
from orchestrator.parsing.replies.supervisor_records import BadRecord, parse_record

QUICK_S = 30.0
MAX_COMPLAINTS = 20
NEWS = frozenset(f"{scheduler.label}.out" for scheduler in SCHEDULERS)
MAX_NEWS_BYTES = 300
MAX_LOGS = 10_000  # two for each of 4096 ranks, and some launchers


class Watcher:
    """One attempt on one node. ``run`` ends when the supervisor is done and everything is here.

    ``positions`` maps ranks to how far their reports were read before. The supervisor's records are
    read from the beginning: what the machine knows already is no news to it. ``exchanged`` is
    called when more of what ranks exchange with us is on disk.
    """

    def __init__(
        self,
        link: NodeLink,
        *,
        attempt: int,
        context: RunContext,
        post: Post,
        clock_offset_s: float,
        positions: Mapping[int, int],
        exchanged: Callable[[], None] = lambda: None,
    ) -> None:
        self._link = link
        self._node = link.spec.name
        self._watched = {"run": context.request.run_id, "node": self._node, "attempt": attempt}
        self._context = context
        self._post = post
        self._offset_s = clock_offset_s
        folder = context.folder
        self._spool = Spool(
            self._node, folder.node_logs(self._node, attempt),
            lambda file: folder.log(self._node, file, attempt),
        )  # fmt: skip
        self._exchanges = Spool(
            self._node, folder.node_exchange(self._node, attempt),
            lambda file: folder.exchange(self._node, file, attempt),
        )  # fmt: skip
        self._exchanged = exchanged
        self._cursors = self._spool.sizes() | self._exchanges.sizes()
        self._cursors |= {f"rank-{rank}.jsonl": at for rank, at in positions.items()}
        self._lines: dict[str, bytes] = {}
        self._news = b""
        self._complaints = 0
        self._ended = False
        self._drained = asyncio.Event()

    async def run(self) -> None:
        """Until drained, on as many links as it takes. Posts ``NodeLost`` when the node is gone,
        ``Failed`` when it cannot be followed, and an ``OSError`` when nothing can be stored here.
        """
        try:
            while not self._ended:
                await self._watch_once()
            await asyncio.to_thread(self._spool.sync)
            await asyncio.to_thread(self._exchanges.sync)
        except NodeGone as error:
            self._post(NodeLost(node=self._node, problem=problem_of(error)))
        except (OrchestrateError, BadStream) as error:
            self._post(Failed(node=self._node, phase=Phase.WATCH, problem=problem_of(error)))
        except OSError as error:  # our own disk: this coordinator can do nothing more
            self._post(error)
        finally:
            self._drained.set()

    async def drained(self) -> None:
        """Wait until nothing more will come."""
        await self._drained.wait()

    async def _watch_once(self) -> None:
        """One watch on one channel, to its end or until the channel breaks."""
        request = {**self._watched, "cursors": self._cursors}
        watch = await self._link.watch(request, timeout_s=QUICK_S)
        try:
            async for event in watch.channel.events():
                if event.watch == watch.id and self._take(event):
                    return
        except ChannelLost:
            await self._link.drop(watch.channel)

    def _take(self, event: AgentEvent) -> bool:
        """Whether that was the last event of the watch."""
        match event.name:
            case "supervisor":
                self._take_record(event)
            case "log":
                self._take_log(event)
            case "report":
                self._take_report(event)
            case "exchange":
                file = str(event.fields.get("file"))
                self._exchanges.append(file, _position(event, "offset"), event.payload)
                self._cursors[file] = _position(event, "next")
                self._exchanged()
            case "drained":
                self._ended = True
            case "supervisor-lost":
                self._ended = True
                lost = Failed(node=self._node, phase=Phase.WATCH, problem=SUPERVISOR_LOST)
                self._post(lost)
        return self._ended

    def _take_record(self, event: AgentEvent) -> None:
        self._cursors["events"] = _position(event, "next")
        record = event.fields.get("record")
        try:
            parsed = parse_record(
                self._node, record if isinstance(record, dict) else {}, self._offset_s
            )
        except BadRecord as error:
            self._complain(f"{self._node}: its supervisor wrote a bad record: {error}")
            return
        if parsed is not None:
            self._post(parsed)

    def _take_log(self, event: AgentEvent) -> None:
        file = str(event.fields.get("file"))
        self._spool.append(file, _position(event, "offset"), event.payload)
        self._cursors[file] = _position(event, "next")
        for observer in self._context.observers:
            observer.on_log(self._node, file, event.payload)
        if file in NEWS:
            self._take_news(event.payload)

    def _take_news(self, payload: bytes) -> None:
        """Whole lines of what a launcher tells of a queue, while there is no rank yet to watch."""
        *lines, rest = (self._news + payload).split(b"\n")
        self._news = rest[:MAX_NEWS_BYTES]
        for line in lines:
            text = line[:MAX_NEWS_BYTES].decode(errors="replace")
            self._context.note(f"{self._node}: {text}")

    def _take_report(self, event: AgentEvent) -> None:
        file = str(event.fields.get("file"))
        following = _position(event, "next")
        rank = rank_of(file)
        if rank is None:  # and no cursor: a log may have the same name
            self._complain(f"{self._node}: {file[:80]!r} is no rank's report")
            return
        self._cursors[file] = following
        *lines, rest = event.payload.split(b"\n")
        end = following - len(event.payload)
        for line in lines:
            end += len(line) + 1
            begun = self._lines.pop(file, b"")
            self._take_line(rank, begun + line, end)
        self._lines[file] = (self._lines.pop(file, b"") + rest)[: MAX_LINE_BYTES + 1]

    def _take_line(self, rank: int, line: bytes, end: int) -> None:
        report = parse_report(self._node, rank, line, end)
        if isinstance(report, str):
            self._complain(f"{self._node}: {report}")
        elif report is not None:
            self._post(report)

    def _complain(self, text: str) -> None:
        self._complaints += 1
        if self._complaints <= MAX_COMPLAINTS:
            self._context.note(text)


SUPERVISOR_LOST = Problem(
    id="OR-AGENT-SUPERVISOR",
    message="the node's supervisor ended without a conclusion (killed, or the node rebooted)",
    remedy="its ranks end with it; check the node's uptime and kernel log",
)


class BadStream(Exception):
    """The node's stream has a gap, or names a file that cannot be."""


class Spool:
    """One node's streams on the coordinator: raw bytes, in order, each byte once.

    ``path`` maps the name of a stream to its file below ``folder``, or raises ``ValueError``.
    """

    def __init__(self, node: str, folder: Path, path: Callable[[str], Path]) -> None:
        self._node = node
        self._folder = folder
        self._path = path
        self._paths: dict[str, Path] = {}

    def sizes(self) -> dict[str, int]:
        """How many bytes of each file are here."""
        return {path.name: path.stat().st_size for path in self._present()}

    def sync(self) -> None:
        """Make what is here survive a power cut: nobody will read it again. Raises ``OSError``."""
        for path in self._present():
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def _present(self) -> list[Path]:
        return [path for path in self._folder.glob("*") if path.is_file()]

    def append(self, name: str, offset: int, data: bytes) -> None:
        """Raises :class:`BadStream` unless ``offset`` is where the file ends, ``OSError`` if
        full.
        """
        path = self._paths.get(name) or self._add(name)
        # Not kept open: thousands of ranks, or a node that invents names, would use up all files
        # that this process may have open.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            end = os.fstat(descriptor).st_size
            if offset > end:
                raise BadStream(f"{self._node}/{name}: bytes {end} to {offset} are missing")
            rest = memoryview(data)[end - offset :]
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)

    def _add(self, name: str) -> Path:
        try:
            path = self._path(name)
        except ValueError as error:
            raise BadStream(f"{self._node} sent a log called {name[:80]!r}") from error
        if len(self._paths) >= MAX_LOGS:
            raise BadStream(f"{self._node} sent more than {MAX_LOGS} logs")
        make_private_dir(path.parent)
        self._paths[name] = path
        return path


def rank_of(file: str) -> int | None:
    """``rank-3.jsonl`` -> 3; None for anything else."""
    number = file.removeprefix("rank-").removesuffix(".jsonl")
    return int(number) if number.isascii() and number.isdigit() and len(number) < 8 else None


def _position(event: AgentEvent, name: str) -> int:
    value = event.fields.get(name)
    if type(value) is not int or value < 0:
        raise BadStream(f"an event without a position: {json.dumps(value)[:40]}")
    return value
