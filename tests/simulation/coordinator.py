"""A coordinator as a process of the simulated world: the production engine, watched from outside.

It can be killed at any journal write, before and after any action and at any message to a node;
what it does after its death reaches nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import errno
import os
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from orchestrator.adapters.store.claim import claimed
from orchestrator.adapters.store.journal import Journal
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.metric_series import Point, SeriesWriter
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.model.request import RunRequest
from orchestrator.core.run.actions import Action, Conclude
from orchestrator.core.run.events import Event
from orchestrator.core.run.machine import action_identity
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.result import Result
from orchestrator.engine import run as engine_run
from orchestrator.engine.action_runner import ActionRunner
from orchestrator.engine.node import log_stream as watching
from orchestrator.engine.node.log_stream import Spool
from orchestrator.engine.support.context import RunContext
from orchestrator.engine.support.interrupts import Abandoned, Interrupts
from tests.simulation.loop import PROCESS, Killed, Process, check_alive
from tests.simulation.world import FakeSnapshot, FakeWorld

if TYPE_CHECKING:
    from tests.simulation.network import Conversation

# What a crash leaves of a line: it was never acknowledged.
TORN = b'{"seq": 7, "t": 179000'
Drive = Callable[[RunContext], Coroutine[Any, Any, Result]]
COORDINATOR: contextvars.ContextVar[Coordinator] = contextvars.ContextVar("coordinator")


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A place in a coordinator's life, the ``number``-th of its kind from 0."""

    kind: str
    number: int


class CoordinatorClock:
    """``jump_s`` moves the wall clock; the monotonic one does not care."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world
        self.jump_s = 0.0

    def monotonic(self) -> float:
        return self._world.now + 5000.0

    def wall(self) -> float:
        return self._world.true_wall() + self.jump_s


@dataclass(slots=True)
class Seen:
    """How often each kind of point was passed, and what was told."""

    points: dict[str, int] = field(default_factory=dict)
    performed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Coordinator:
    """``crash``: where to be killed. ``outcome`` is a result, or what ended it."""

    def __init__(
        self,
        world: FakeWorld,
        request: RunRequest,
        folder: RunFolder,
        name: str,
        drive: Drive,
        *,
        crash: CrashPoint | None = None,
        silently: bool = False,
        again: bool = False,
    ) -> None:
        self.world = world
        self.folder = folder
        self.process = Process(name)
        self.clock = CoordinatorClock(world)
        self.interrupts = Interrupts()
        self.disk_full = False
        self.seen = Seen()
        self.state: RunState | None = None
        self.outcome: Result | BaseException | None = None
        self._request = request
        self._drive = drive
        self._crash = crash
        self._silently = silently
        self._conversations: list[Conversation] = []
        self.open_files: list[Journal | SeriesWriter] = []
        self.at_end: Callable[[Coordinator], None] = lambda _: None
        self.ended = asyncio.Event()
        self.again = again
        self.began_s = world.now

    def start(self) -> None:
        """Its tasks, and those that they start, know that they are its own."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, self.process)
        context.run(COORDINATOR.set, self)
        self.world.request_watchers.append(self._on_request)
        self.world.loop.create_task(self._live(), context=context)

    async def _live(self) -> None:
        context = RunContext(
            request=self._request,
            snapshot=FakeSnapshot(),  # type: ignore[arg-type]
            folder=self.folder,
            observers=[self],
            clock=self.clock,
            dial=self.world.dial,
            interrupts=self.interrupts,
        )
        try:
            with claimed(self.folder, at=self.clock.wall()):
                self.outcome = await self._drive(context)
        except (Exception, Abandoned, Killed, asyncio.CancelledError) as error:  # noqa: BLE001
            self.outcome = error
        if not self.process.alive:
            self.outcome = Killed()
        elif left := [t for t in self.process.living() if t is not asyncio.current_task()]:
            self.world.violate(f"{self.process.name} leaves {len(left)} tasks behind: {left[:2]}")
        self.world.note(f"{self.process.name} ends: {self.describe()}")
        self._leave()

    def _leave(self) -> None:
        """The process is over; the kernel closes what it had open."""
        self.process.die()
        for file in self.open_files:
            file.close()
        self.at_end(self)
        if self._on_request in self.world.request_watchers:
            self.world.request_watchers.remove(self._on_request)
        for conversation in self._conversations:
            if not self._silently:
                conversation.close()
        if self._silently and isinstance(self.outcome, Killed):
            self._lose_unsynced()
        self.ended.set()

    def _lose_unsynced(self) -> None:
        """The power cut took some of what was written last: journal entries and log bytes."""
        random = self.world.random
        for path in (self.folder.journal, *sorted(self.folder.logs.rglob("*.out"))):
            if path.exists():
                status = path.stat()
                least = self.world.synced.get(status.st_ino, 0)
                os.truncate(
                    path, random.choice((status.st_size, random.randint(least, status.st_size)))
                )

    # ---- being killed ---------------------------------------------------------------------------

    def kill(self) -> None:
        """KILL, or with ``silently`` the power cut of its machine: nobody says goodbye."""
        if self.process.alive and not self.ended.is_set():
            self.world.note(f"{self.process.name} is killed")
            if self.process.frozen:
                self.world.loop.thaw(self.process)
            self.process.die()
            for conversation in self._conversations:
                conversation.channel.lose("killed")
                if self._silently:
                    self.world.call_later(60.0, conversation.agent.die)
                else:
                    conversation.close()
            self._unwind()

    def _unwind(self) -> None:
        for task in self.process.living():
            task.cancel()
        if self.process.living():
            self.world.call_later(0.001, self._unwind)

    def passes(self, kind: str) -> None:
        """A point of that kind is reached. Raises :class:`Killed` if it is the one."""
        check_alive()
        number = self.seen.points.get(kind, 0)
        self.seen.points[kind] = number + 1
        if self._crash == CrashPoint(kind, number):
            self.kill()
            raise Killed

    def _on_request(self, conversation: Conversation, frame: dict[str, Any], at: str) -> None:
        if conversation.owner is not self.process or not self.process.alive:
            return
        if conversation not in self._conversations:
            self._conversations.append(conversation)
        if frame["op"] in ("credit", "watch") and at == "executed":
            return
        number = self.seen.points.get(at, 0)
        self.seen.points[at] = number + 1
        if self._crash == CrashPoint(at, number):
            self.kill()

    def check_disk(self) -> None:
        check_alive()
        if self.disk_full:
            raise OSError(errno.ENOSPC, "No space left on device")

    # ---- observing ------------------------------------------------------------------------------

    def on_event(self, at: float, event: Event, state: RunState) -> None:
        del at
        before, self.state = self.state, state
        if before is not None and (state.attempt, state.epoch) < (before.attempt, before.epoch):
            self.world.violate(f"{self.process.name} went back by {type(event).__name__}")
        if self.world.trace is not None and type(event).__name__ != "Reported":
            self.world.note(f"{self.process.name} {event!r:.220}")

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        """The files themselves are looked at."""

    def on_note(self, text: str) -> None:
        self.seen.notes.append(text)

    def close(self, result: Result | None) -> None:
        """Nothing to give back."""

    def describe(self) -> str:
        match self.outcome:
            case Result() as result:
                failure = f" {result.failure.id}: {result.failure.cause}" if result.failure else ""
                return f"{result.status.value} ({int(result.exit_code)}){failure}"
            case OrchestrateError() as error:
                return f"{type(error).__name__} {error.id}: {error}"
            case other:
                return repr(other)


# ---- watching the engine ------------------------------------------------------------------------


class _WatchedJournal(Journal):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        COORDINATOR.get().open_files.append(self)

    def append_many(self, entries: Iterable[tuple[float, Mapping[str, Any]]]) -> range:
        entries = list(entries)
        coordinator = COORDINATOR.get()
        check_alive()
        if not entries:
            return range(0)
        coordinator.passes("before a write")
        coordinator.check_disk()
        try:
            coordinator.passes("within a write")
        except Killed:
            with self.path.open("ab") as file:
                file.write(TORN)
            raise
        written = super().append_many(entries)
        coordinator.passes("after a write")
        return written


class _WatchedSeries(SeriesWriter):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        COORDINATOR.get().open_files.append(self)

    def append_many(self, points: Iterable[Point]) -> None:
        points = list(points)
        if points:
            COORDINATOR.get().check_disk()
            super().append_many(points)


class _WatchedHands(ActionRunner):
    def perform(self, action: Action, state: RunState) -> None:
        assert not isinstance(action, Conclude)
        coordinator = COORDINATOR.get()
        coordinator.passes("before an action")
        coordinator.seen.performed.append(action_identity(action))
        coordinator.world.note(f"{coordinator.process.name} performs {action_identity(action)}")
        super().perform(action, state)
        coordinator.passes("after an action")


class _WatchedSpool(Spool):
    def append(self, name: str, offset: int, data: bytes) -> None:
        COORDINATOR.get().check_disk()
        super().append(name, offset, data)


def _sync(fd: int) -> None:
    """What the disk has from now on, a power cut does not take."""
    coordinator = COORDINATOR.get(None)
    if coordinator is not None:
        check_alive()
        status = os.fstat(fd)
        coordinator.world.synced[status.st_ino] = status.st_size


@contextlib.contextmanager
def watched_engine() -> Iterator[None]:
    """While inside, the engine's journal, hands and files are watched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_run, "Journal", _WatchedJournal)
        patch.setattr(engine_run, "SeriesWriter", _WatchedSeries)
        patch.setattr(engine_run, "ActionRunner", _WatchedHands)
        patch.setattr(watching, "Spool", _WatchedSpool)
        patch.setattr(os, "fsync", _sync)
        yield
