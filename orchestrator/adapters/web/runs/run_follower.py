"""One run, read from its folder as the folder grows: journal, series, logs, and its result."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from orchestrator.adapters.history.run_entry import read_request
from orchestrator.adapters.store.journal import Entry, JournalReader
from orchestrator.adapters.store.latest_progress import RankProgress, read_progress
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.metric_series import PointReader
from orchestrator.adapters.store.run_list import RunSummary, read_result, summarise
from orchestrator.adapters.web.runs.live_curves import LiveCurves
from orchestrator.adapters.web.runs.live_log import LiveLog, LogLine
from orchestrator.adapters.web.runs.run_view import RunPageView
from orchestrator.core.base.codec import from_json
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.run.events import Event
from orchestrator.core.run.machine import current_phase, step
from orchestrator.core.run.state import RunState, new_state
from orchestrator.core.run.timings import Timings
from orchestrator.core.verdict.result import Result

T = TypeVar("T")
TURN_S = 0.25  # of reading at once; what is left waits for the next turn


class RunFollower:
    """``advance`` reads a bounded portion of what is new, in a thread; ``view`` shows all."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._journal = JournalReader(folder.journal)
        self._entries: deque[Entry] = deque()
        self._points = PointReader(folder.metrics)
        self._log = LiveLog(folder)
        self._curves = LiveCurves()
        self._state: RunState | None = None
        self._timings: Timings | None = None
        self._began = self._at = 0.0
        self._summary = RunSummary(run_id=folder.run_id, state="")
        self._result: tuple[float, Result] | None = None
        self._progress: tuple[RankProgress, ...] = ()
        self._trouble = ""
        self.behind = False  # a turn ended before everything was read

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self._result is not None

    def advance(self) -> tuple[bool, list[LogLine]]:
        """(whether the view is another one now, new lines of logs). What cannot be read is a
        trouble of the view, never an exception.
        """
        before = self._rest
        self.behind, self._trouble = False, ""
        end = time.monotonic() + TURN_S
        self._try(self._read_result, None)
        self._summary = self._try(lambda: summarise(self._folder), self._summary)
        news = self._try(lambda: self._replay(end), False)
        news |= self._try(lambda: self._read_points(end), False)
        nothing: list[LogLine] = []
        lines = self._try(self._log.read, nothing)
        self._progress = read_progress(self._folder.progress)
        return news or before != self._rest, lines

    @property
    def _rest(self) -> object:
        """What is another thing when the view is another one, besides events and points."""
        return (self._summary, self._result, self._progress, self._trouble)

    def view(self) -> RunPageView:
        """What is known now."""
        return RunPageView(
            summary=self._summary,
            state=self._state,
            result=self._result[1] if self._result else None,
            charts=self._curves.charts(),
            last_step=self._curves.last_step,
            progress=self._progress,
            seconds=dict(self._timings.seconds) if self._timings else {},
            began=self._began,
            last_event=self._at,
            trouble=self._trouble,
        )

    def _try(self, read: Callable[[], T], otherwise: T) -> T:
        """One part that cannot be read does not keep the others from being shown."""
        try:
            return read()
        except (OSError, ValueError, OrchestrateError) as error:
            self._trouble = self._trouble or str(error)
            return otherwise

    def _read_result(self) -> None:
        """A run that is resumed after its end has none again."""
        try:
            changed = self._folder.result.stat().st_mtime
        except FileNotFoundError:
            self._result = None
            return
        if self._result is None or self._result[0] != changed:
            result = read_result(self._folder)
            self._result = None if result is None else (changed, result)

    def _replay(self, end: float) -> bool:
        if self._state is None:
            request = read_request(self._folder)
            if request is None:
                return False
            self._state = new_state(request)
        if not self._entries:
            self._entries.extend(self._journal.read())
        news = bool(self._entries)
        while self._entries:
            self._state = self._take(self._state, self._entries[0])
            self._entries.popleft()  # what cannot be taken is not skipped
            if time.monotonic() >= end:
                break
        self.behind = bool(self._entries)
        return news

    def _take(self, state: RunState, entry: Entry) -> RunState:
        event: Event = from_json(Event, entry.event)
        state, _ = step(state, event)
        if self._timings is None:
            self._timings, self._began = Timings(entry.t), entry.t
        self._timings.enter(current_phase(state), entry.t)
        self._at = max(self._at, entry.t)
        return state

    def _read_points(self, end: float) -> bool:
        news = False
        while points := self._points.read():
            self._curves.add(points)
            self._at = max(self._at, points[-1].t)
            news = True
            if time.monotonic() >= end:
                self.behind = True
                break
        return news
