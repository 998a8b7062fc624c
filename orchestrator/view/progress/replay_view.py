"""A run that goes on elsewhere, or is over, as if one had been there: for ``attach``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.adapters.store.journal import JournalReader
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.metric_series import PointReader
from orchestrator.core.run.events import Event
from orchestrator.core.run.machine import step
from orchestrator.core.run.state import RunState, new_state
from orchestrator.engine.oneshot.cleanup import read_request
from orchestrator.engine.support.observer import Observer
from orchestrator.engine.support.replay import read_events
from orchestrator.view.terminal.log_tail import LogTail


class Replay:
    """Feeds observers from the journal, the metric file and the logs; each entry exactly once."""

    def __init__(self, folder: RunFolder, observers: Sequence[Observer]) -> None:
        self._folder = folder
        self._observers = observers
        self._journal = JournalReader(folder.journal)
        self._points = PointReader(folder.metrics)
        self._logs = LogTail(folder)
        self.state: RunState = new_state(read_request(folder))

    def advance(self) -> bool:
        """Pass on what is new; False when nothing was. Raises :class:`InternalError` for damage."""
        news = [*self._journaled(), *self._reported()]
        for at, event in sorted(news, key=lambda item: item[0]):
            self.state, _ = step(self.state, event)
            for observer in self._observers:
                observer.on_event(at, event, self.state)
        return self._logs.read(self._on_log) or bool(news)

    def _on_log(self, node: str, file: str, chunk: bytes) -> None:
        for observer in self._observers:
            observer.on_log(node, file, chunk)

    def _journaled(self) -> Iterator[tuple[float, Event]]:
        return read_events(self._folder, self._journal.read())

    def _reported(self) -> Iterator[tuple[float, Event]]:
        """Points of series; final figures are in the journal."""
        for point in self._points.read():
            if point.step is not None:
                yield point.t, point.event
