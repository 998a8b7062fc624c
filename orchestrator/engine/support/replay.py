"""What a run's folder remembers: the events of its journal, and the state that they led to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from orchestrator.adapters.store.journal import Entry, JournalReader
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.metric_series import Point, PointReader
from orchestrator.core.base.codec import CodecError, from_json
from orchestrator.core.base.errors import InternalError
from orchestrator.core.base.persistent_map import PersistentMap
from orchestrator.core.model.request import RunRequest
from orchestrator.core.run import machine
from orchestrator.core.run.events import Event
from orchestrator.core.run.recording import record_event
from orchestrator.core.run.state import RunState, new_state
from orchestrator.core.run.timings import Timings


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """Where a run stood when its coordinator last wrote down an event."""

    state: RunState
    timings: Timings = field(compare=False)


def replay_journal(folder: RunFolder, request: RunRequest) -> RecordedRun:
    """The state that the journal leads to. Raises :class:`InternalError` for damage."""
    state = new_state(request)
    timings: Timings | None = None
    for at, event in read_events(folder, JournalReader(folder.journal).read_all()):
        timings = timings or Timings(at)
        state, _ = machine.step(state, event)
        timings.enter(machine.current_phase(state), at)
    return RecordedRun(_with_reports(folder, state), timings or Timings(0.0))


def read_events(folder: RunFolder, entries: Iterable[Entry]) -> Iterator[tuple[float, Event]]:
    """(wall clock, event) of journal entries. Raises :class:`InternalError`."""
    for entry in entries:
        try:
            yield entry.t, from_json(Event, entry.event)
        except CodecError as error:
            raise InternalError(
                f"run {folder.run_id} cannot be replayed",
                id="OR-STORE-005",
                where=folder.path,
                why=f"entry {entry.seq}: {error}",
                remedy=f"orchestrate logs {folder.run_id}",
            ) from error


def read_positions(folder: RunFolder, attempt: int) -> dict[tuple[str, int], int]:
    """(node, rank) -> how far its report file of ``attempt`` was read, as the series tells."""
    positions: dict[tuple[str, int], int] = {}
    for point in _series_points(folder, attempt):
        place = (point.node, point.rank)
        positions[place] = max(positions.get(place, 0), point.position)
    return positions


def _with_reports(folder: RunFolder, state: RunState) -> RunState:
    """What the series knows beyond the journal, before which it is written: how far each report
    file of this attempt was read, and final figures.
    """
    for point in _series_points(folder, state.attempt):
        if point.step is None:
            # Without its position: a figure that is known already changes nothing.
            state = record_event(state, replace(point.event, position=0))
    read = read_positions(folder, state.attempt)
    further = {place: max(at, read.get(place, 0)) for place, at in state.positions.items()}
    return replace(state, positions=PersistentMap({**read, **further}))


def _series_points(folder: RunFolder, attempt: int) -> Iterator[Point]:
    reader = PointReader(folder.metrics)
    while points := reader.read():
        yield from (point for point in points if point.attempt == attempt)
