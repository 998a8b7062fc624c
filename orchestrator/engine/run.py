"""One run from beginning to end: await events, journal them, step, perform the actions."""

from __future__ import annotations

import asyncio

from orchestrator.core import machine
from orchestrator.core.codec import to_json
from orchestrator.core.errors import RunFailed
from orchestrator.core.events import (
    Action,
    Begun,
    Conclude,
    DeadlinePassed,
    Event,
    Launch,
    Phase,
    Progressed,
    Reported,
    Stop,
    StopKind,
    StopRequested,
)
from orchestrator.core.result import Result
from orchestrator.core.state import new_state
from orchestrator.core.verdict import conclude
from orchestrator.edges.store.files import write_json
from orchestrator.edges.store.journal import Journal
from orchestrator.engine.context import RunContext
from orchestrator.engine.hands import Hands
from orchestrator.engine.interrupts import Abandoned
from orchestrator.engine.problems import unwritable

# Events that are already waiting share one write; the bound keeps observers lively.
EVENTS_PER_WRITE = 256
# What these lead to cannot be found out again after a power cut: the journal is synced first. All
# other actions may be repeated, and a mere crash of this process loses nothing that was written.
IRREVERSIBLE = (Launch, Stop, Conclude)


async def execute(context: RunContext) -> Result:
    """Run to the verdict; the context's folder exists and receives everything.

    Raises :class:`RunFailed` when the coordinator's own disk fails, and :class:`Abandoned` after a
    third interrupt; then the nodes were not asked to stop.
    """
    engine = _Engine(context)
    try:
        with context.interrupts.handled(engine.request_stop, engine.leave):
            return await engine.run()
    except OSError as error:
        problem = unwritable(context.folder, error)
        raise RunFailed(problem.message, id=problem.id, remedy=problem.remedy) from error
    finally:
        await engine.close()


class _Engine:
    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._clock = context.clock
        self._state = new_state(context.request)
        self._journal = Journal(context.folder.journal)
        self._queue: asyncio.Queue[Event | BaseException] = asyncio.Queue()
        self._timings = _Timings(context.clock.monotonic())
        self._hands = Hands(context, self._queue.put_nowait)

    async def run(self) -> Result:
        self._queue.put_nowait(Begun())
        while "Conclude" not in self._state.issued:
            for event in self._journaled(await self._next_events()):
                self._handle(event)
        return self._conclude()

    async def close(self) -> None:
        await self._hands.close()
        self._journal.close()

    def request_stop(self, kind: StopKind, by: str) -> None:
        self._queue.put_nowait(StopRequested(kind=kind, by=by, at=self._clock.wall()))

    def leave(self) -> None:
        self._queue.put_nowait(Abandoned())

    async def _next_events(self) -> list[Event]:
        """At least one event: what arrived, or that the phase's time is up."""
        events = [await self._next_event()]
        while not self._queue.empty() and len(events) < EVENTS_PER_WRITE:
            events.append(_raised_or_event(self._queue.get_nowait()))
        return events

    async def _next_event(self) -> Event:
        budget = machine.budget(self._state)
        try:
            async with asyncio.timeout(self._timings.left(budget, self._clock.monotonic())):
                return _raised_or_event(await self._queue.get())
        except TimeoutError:
            return DeadlinePassed(phase=machine.phase(self._state), after_s=budget or 0.0)

    def _journaled(self, events: list[Event]) -> list[Event]:
        """Journal before action; a point of a series is no decision and goes to the metric file."""
        now = self._clock.wall()
        self._journal.append_many((now, to_json(event)) for event in events if _decisive(event))
        return events

    def _handle(self, event: Event) -> None:
        self._state, actions = machine.step(self._state, event)
        phase = machine.phase(self._state)
        self._timings.enter(phase, self._clock.monotonic())
        for observer in self._context.observers:
            observer.on_event(self._clock.wall(), event, self._state)
        if any(isinstance(action, IRREVERSIBLE) for action in actions):
            self._journal.sync()
        for action in actions:
            self._perform(action)

    def _perform(self, action: Action) -> None:
        if not isinstance(action, Conclude):
            self._hands.perform(action, self._state)

    def _conclude(self) -> Result:
        self._timings.enter(Phase.CONCLUDED, self._clock.monotonic())
        if self._state.plan is not None:
            write_json(self._context.folder.plan, to_json(self._state.plan))
        return conclude(
            self._state,
            timings=self._timings.seconds,
            report=str(self._context.folder.report_html),
        )


def _raised_or_event(item: Event | BaseException) -> Event:
    if isinstance(item, BaseException):
        raise item
    return item


def _decisive(event: Event) -> bool:
    return not isinstance(event, Progressed) and not (
        isinstance(event, Reported) and event.step is not None
    )


class _Timings:
    """Seconds spent in each phase, and what is left of the present one's budget."""

    def __init__(self, now: float) -> None:
        self.seconds: dict[str, float] = {}
        self._phase = Phase.LOAD
        self._since = now

    def enter(self, phase: Phase, now: float) -> None:
        if phase is self._phase:
            return
        self._add(now)
        self._phase, self._since = phase, now

    def left(self, budget: float | None, now: float) -> float | None:
        return None if budget is None else max(0.0, self._since + budget - now)

    def _add(self, now: float) -> None:
        name = self._phase.value
        self.seconds[name] = round(self.seconds.get(name, 0.0) + now - self._since, 3)
