"""A run that goes on elsewhere, or is over, as if one had been there: for ``attach``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.core.codec import CodecError, from_json
from orchestrator.core.errors import InternalError
from orchestrator.core.events import Event, Reported, StopKind, StopRequested
from orchestrator.core.machine import step
from orchestrator.core.request import RunRequest
from orchestrator.core.result import Result
from orchestrator.core.state import RunState, new_state
from orchestrator.core.verdict import conclude
from orchestrator.edges.store.journal import JournalReader
from orchestrator.edges.store.layout import RunFolder
from orchestrator.edges.store.series import PointReader
from orchestrator.engine.observer import Observer
from orchestrator.engine.revisit import read_request
from orchestrator.view.log_tail import LogTail


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
        for entry in self._journal.read():
            try:
                yield entry.t, from_json(Event, entry.event)
            except CodecError as error:
                raise _unreadable(self._folder, f"entry {entry.seq}: {error}") from error

    def _reported(self) -> Iterator[tuple[float, Event]]:
        """Points of series; final figures are in the journal."""
        for point in self._points.read():
            if point.step is not None:
                event = Reported(
                    node=point.node,
                    rank=point.rank,
                    name=point.name,
                    value=point.value,
                    unit=point.unit,
                    step=point.step,
                )
                yield point.t, event


def stopped_result(folder: RunFolder, *, at: float) -> tuple[RunRequest, Result]:
    """The verdict on a run that was stopped at ``at`` (seconds) without its coordinator.

    Raises :class:`UsageError` or :class:`InternalError` when the run's files cannot be read.
    """
    replay = Replay(folder, [])
    while replay.advance():
        pass
    asked = StopRequested(kind=StopKind.KILL, by="orchestrate stop", at=at)
    state, _ = step(replay.state, asked)
    result = conclude(state, timings={}, report=str(folder.report_html))
    return state.request, result


def _unreadable(folder: RunFolder, why: str) -> InternalError:
    return InternalError(
        f"run {folder.run_id} cannot be replayed",
        id="OR-STORE-005",
        where=folder.path,
        why=why,
        remedy=f"orchestrate logs {folder.run_id}",
    )
