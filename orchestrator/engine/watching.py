"""Follows one node's supervisor: its records become events, its log bytes land on disk, gap-free.

A watch begins at the byte where the last one ended, so a broken link costs nothing but time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from orchestrator.boundary.kit_records import MAX_LINE_BYTES, parse_report
from orchestrator.boundary.supervisor_records import BadRecord, parse_record
from orchestrator.core.errors import OrchestrateError
from orchestrator.core.events import Failed, NodeLost, Phase, Problem
from orchestrator.edges.agent.channel import AgentEvent, ChannelLost
from orchestrator.edges.store.layout import RunFolder
from orchestrator.engine.context import Post, RunContext
from orchestrator.engine.node_link import NodeLink, NodeSilent
from orchestrator.engine.problems import problem_of, unwritable

QUICK_S = 30.0
MAX_COMPLAINTS = 20


class Watcher:
    """One attempt on one node. ``run`` ends when the supervisor is done and everything is here."""

    def __init__(
        self,
        link: NodeLink,
        *,
        attempt: Mapping[str, object],
        context: RunContext,
        post: Post,
        clock_offset_s: float,
    ) -> None:
        self._link = link
        self._node = link.spec.name
        self._attempt = dict(attempt)
        self._context = context
        self._post = post
        self._offset_s = clock_offset_s
        self._cursors: dict[str, int] = {}
        self._spool = Spool(context.folder, self._node)
        self._lines: dict[str, bytes] = {}
        self._complaints = 0
        self._drained = asyncio.Event()

    async def run(self) -> None:
        """Until drained, on as many links as it takes. Posts ``NodeLost`` when the node is silent,
        ``Failed`` when it cannot be followed, be it for want of space on our own disk.
        """
        try:
            while not self._drained.is_set():
                await self._watch_once()
        except NodeSilent as error:
            self._post(NodeLost(node=self._node, problem=problem_of(error)))
        except (OrchestrateError, BadStream) as error:
            self._post(Failed(node=self._node, phase=Phase.WATCH, problem=problem_of(error)))
        except OSError as error:
            problem = unwritable(self._context.folder, error)
            self._post(Failed(node=self._node, phase=Phase.WATCH, problem=problem))
        finally:
            self._spool.close()
            self._drained.set()

    async def drained(self) -> None:
        """Wait until nothing more will come."""
        await self._drained.wait()

    async def _watch_once(self) -> None:
        """One watch on one channel, to its end or until the channel breaks."""
        request = {**self._attempt, "cursors": self._cursors}
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
            case "drained":
                self._drained.set()
            case "supervisor-lost":
                self._drained.set()
                self._post(NodeLost(node=self._node, problem=SUPERVISOR_LOST))
        return self._drained.is_set()

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

    def _take_report(self, event: AgentEvent) -> None:
        file = str(event.fields.get("file"))
        self._cursors[file] = _position(event, "next")
        data = self._lines.pop(file, b"") + event.payload
        *lines, rest = data.split(b"\n")
        self._lines[file] = rest[: MAX_LINE_BYTES + 1]
        rank = rank_of(file)
        for line in lines if rank is not None else ():
            report = parse_report(self._node, rank or 0, line)
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
    """One node's logs on the coordinator: raw bytes, in order, each byte once."""

    def __init__(self, folder: RunFolder, node: str) -> None:
        self._folder = folder
        self._node = node
        self._files: dict[str, BinaryIO] = {}

    def append(self, name: str, offset: int, data: bytes) -> None:
        """Raises :class:`BadStream` unless ``offset`` is where the file ends, ``OSError`` if
        full.
        """
        file = self._files.get(name) or self._open(name)
        end = file.tell()
        if offset > end:
            raise BadStream(f"{self._node}/{name}: bytes {end} to {offset} are missing")
        file.write(data[end - offset :])
        file.flush()

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _open(self, name: str) -> BinaryIO:
        try:
            path: Path = self._folder.log(self._node, name)
        except ValueError as error:
            raise BadStream(f"{self._node} sent a log called {name!r}") from error
        path.parent.mkdir(mode=0o700, exist_ok=True)
        file = path.open("ab")
        self._files[name] = file
        return file


def rank_of(file: str) -> int | None:
    """``rank-3.jsonl`` -> 3; None for anything else."""
    number = file.removeprefix("rank-").removesuffix(".jsonl")
    return int(number) if number.isascii() and number.isdigit() and len(number) < 8 else None


def _position(event: AgentEvent, name: str) -> int:
    value = event.fields.get(name)
    if type(value) is not int or value < 0:
        raise BadStream(f"an event without a position: {json.dumps(value)[:40]}")
    return value
