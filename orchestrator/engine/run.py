"""One run from beginning to end: await events, journal them, step, perform the actions."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from orchestrator.adapters.store.atomic_files import write_json
from orchestrator.adapters.store.journal import Journal
from orchestrator.adapters.store.latest_progress import ProgressFile
from orchestrator.adapters.store.metric_series import Point, SeriesWriter
from orchestrator.core.base.codec import to_json
from orchestrator.core.model.request import RunRequest
from orchestrator.core.run import machine
from orchestrator.core.run.actions import Action, Conclude, Launch, Stop
from orchestrator.core.run.events import (
    Begun,
    DeadlinePassed,
    Event,
    Phase,
    Resumed,
    StopKind,
    StopRequested,
)
from orchestrator.core.run.kit_reports import Progressed, Reported
from orchestrator.core.run.node_telemetry import TelemetryRead
from orchestrator.core.run.state import EPOCH_STEP, RunState, new_state
from orchestrator.core.run.timings import Timings
from orchestrator.core.verdict.result import Result
from orchestrator.core.verdict.verdict import conclude_run
from orchestrator.engine.action_runner import ActionRunner
from orchestrator.engine.network.link_watchdog import LinkWatchdog, TcpDialer
from orchestrator.engine.progress_watchdog import ProgressWatchdog
from orchestrator.engine.support.captured import with_captures
from orchestrator.engine.support.combine import combine_outputs
from orchestrator.engine.support.context import RunContext
from orchestrator.engine.support.interrupts import Abandoned
from orchestrator.engine.support.made_nodes import with_nodes
from orchestrator.engine.support.problems import not_written
from orchestrator.engine.support.replay import replay_journal

# Events that are already waiting share one write; the bound keeps observers lively.
EVENTS_PER_WRITE = 256
# What these lead to cannot be found out again after a power cut: the journal is synced first. All
# other actions may be repeated, and a mere crash of this process loses nothing that was written.
IRREVERSIBLE = (Launch, Stop, Conclude)


async def execute(context: RunContext) -> Result:
    """Run to the verdict; the context's folder exists and receives everything.

    Raises :class:`BusyError` when the coordinator's own disk fails, once the nodes were told to
    let the ranks end; and :class:`Abandoned` after a third interrupt, when they were not.
    """

    async def drive(ready: RunContext) -> Result:
        fresh = new_state(ready.request)
        engine = _Engine(ready, fresh, Timings(ready.clock.monotonic()))
        return await _drive(engine, [Begun()])

    return await with_nodes(context, drive)


async def resume(
    context: RunContext,
    *,
    again: bool = False,
    changed: RunRequest | None = None,
    stop: StopRequested | None = None,
) -> Result:
    """Take over a run whose coordinator is gone, and go on from what its journal says.

    ``again`` begins another attempt of a run that had ended; ``changed`` is what that attempt, or
    one that was not launched yet, follows instead of the context's request; ``stop`` ends the run
    instead of going on. Raises as :func:`execute`, and ``InternalError`` for a damaged journal.
    """

    def may_make() -> bool:
        """Ranks that were launched live where they were, or nowhere."""
        before = replay_journal(context.folder, context.request).state
        launched = any(node.launched for node in before.nodes.values())
        return stop is None and (again or not launched)

    async def drive(ready: RunContext) -> Result:
        recorded = replay_journal(ready.folder, ready.request)
        recorded.timings.take_over(ready.clock.wall(), ready.clock.monotonic())
        engine = _Engine(ready, recorded.state, recorded.timings)
        epoch = recorded.state.epoch + EPOCH_STEP
        taken = Resumed(epoch=epoch, at=ready.clock.wall(), again=again, request=changed)
        # A coordinator that died before its first entry left nothing to take over.
        begin: list[Event] = [taken] if recorded.state.begun else [Begun()]
        return await _drive(engine, begin if stop is None else [*begin, stop])

    return await with_nodes(context, drive, may_make=may_make)


async def _drive(engine: _Engine, events: list[Event]) -> Result:
    try:
        with engine.interrupts.handled(engine.request_stop, engine.leave):
            return await engine.run(events)
    except OSError as error:
        await engine.detach()
        raise not_written(engine.folder, error) from error
    finally:
        await engine.close()


@dataclass(frozen=True, slots=True)
class _Step:
    """What one event led to."""

    event: Event
    state: RunState
    actions: tuple[Action, ...]
    news: bool


class _Engine:
    def __init__(self, context: RunContext, state: RunState, timings: Timings) -> None:
        self.folder = context.folder
        self.interrupts = context.interrupts
        self._clock = context.clock
        self._state = state
        self._journal = Journal(context.folder.journal)
        self._series = SeriesWriter(context.folder.metrics)
        # Nobody acts under an epoch that, after a power cut, another coordinator would take, too.
        self._synced_epoch = 0
        self._queue: asyncio.Queue[Event | BaseException] = asyncio.Queue()
        self._timings = timings
        self._pulse = ProgressWatchdog(state, context.clock, self._queue.put_nowait, self._broken)
        self._links = LinkWatchdog(state, context.clock, self._queue.put_nowait, self._dialers)
        self._progress = ProgressFile(context.folder.progress, context.clock.monotonic)
        watches = (self._pulse, self._links, self._progress)
        self._context = replace(context, observers=(*context.observers, *watches))
        self._hands = ActionRunner(self._context, self._queue.put_nowait)

    async def run(self, events: list[Event]) -> Result:
        watching = [asyncio.create_task(watch.run()) for watch in (self._pulse, self._links)]
        try:
            self._take(events)
            while "Conclude" not in self._state.issued:
                self._take(await self._next_events())
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
        self._take(await combine_outputs(self._state, self.folder))
        return self._conclude()

    async def detach(self) -> None:
        """Nothing that happens can be written down: the ranks end now, and the run is resumable."""
        await self._hands.detach(self._state)

    async def close(self) -> None:
        await self._hands.close()
        self._progress.write()
        self._series.close()
        self._journal.close()

    def request_stop(self, kind: StopKind, by: str) -> None:
        self._queue.put_nowait(StopRequested(kind=kind, by=by, at=self._clock.wall()))

    def _broken(self) -> Collection[str]:
        return self._hands.broken()

    def _dialers(self) -> Mapping[str, TcpDialer]:
        return self._hands.trials

    def leave(self) -> None:
        self._queue.put_nowait(Abandoned())

    async def _next_events(self) -> list[Event]:
        """At least one event: what arrived, or that the phase's time is up."""
        events = [await self._next_event()]
        while not self._queue.empty() and len(events) < EVENTS_PER_WRITE:
            events.append(_raised_or_event(self._queue.get_nowait()))
        return events

    async def _next_event(self) -> Event:
        phase = self._timings.phase
        budget = machine.phase_budget(self._state.request, phase)
        try:
            async with asyncio.timeout(self._timings.left(budget, self._clock.monotonic())):
                return _raised_or_event(await self._queue.get())
        except TimeoutError:
            return DeadlinePassed(phase=phase, after_s=budget or 0.0)

    def _take(self, events: list[Event]) -> None:
        """Decide, write down what is news, tell, and only then act."""
        steps = [self._step(event) for event in events]
        now = self._clock.wall()
        self._write([step for step in steps if step.news], now)
        for step in steps:
            if step.news:
                self._timings.enter(machine.current_phase(step.state), self._clock.monotonic())
            if step.news or isinstance(step.event, Progressed | TelemetryRead):
                for observer in self._context.observers:
                    observer.on_event(now, step.event, step.state)
            for action in step.actions:
                self._perform(action, step.state)
        self._hands.see(self._state)

    def _step(self, event: Event) -> _Step:
        before = self._state
        self._state, actions = machine.step(before, event)
        late = isinstance(event, Reported) and event.attempt is not None
        return _Step(event, self._state, actions, news=late or self._state is not before)

    def _write(self, steps: list[_Step], now: float) -> None:
        """Points first: whoever reads both knows from either how far the reports were read."""
        self._series.append_many(
            Point.of(step.event, attempt=step.event.attempt or step.state.attempt, t=now)
            for step in steps
            if isinstance(step.event, Reported)
        )
        self._journal.append_many((now, to_json(s.event)) for s in steps if _is_decisive(s.event))
        irreversible = any(isinstance(a, IRREVERSIBLE) for step in steps for a in step.actions)
        if irreversible or self._state.epoch != self._synced_epoch:
            self._journal.sync()
        self._synced_epoch = self._state.epoch

    def _perform(self, action: Action, state: RunState) -> None:
        if not isinstance(action, Conclude):
            self._hands.perform(action, state)

    def _conclude(self) -> Result:
        self._timings.enter(Phase.CONCLUDED, self._clock.monotonic())
        if self._state.plan is not None:
            write_json(self.folder.plan, to_json(self._state.plan))
        result = conclude_run(
            self._state,
            timings=self._timings.seconds,
            report=str(self.folder.report_html),
        )
        result = with_captures(result, self.folder, self._state)
        if self.folder.prediction.exists():
            from orchestrator.adapters.costs.predict_run import with_prediction

            result = with_prediction(result, self.folder)
        if result.failure is None:
            return result
        # Its rules are hundreds of patterns, which a run that succeeds does not need.
        from orchestrator.engine.support.diagnose_run import with_diagnosis

        return with_diagnosis(result, self.folder, self._state)


def _raised_or_event(item: Event | BaseException) -> Event:
    if isinstance(item, BaseException):
        raise item
    return item


def _is_decisive(event: Event) -> bool:
    """Whether it belongs in the journal; a point of a series is no decision, nor is a late one."""
    if not isinstance(event, Reported):
        return True
    return event.step is None and event.attempt is None
