"""Which runs have series of their own: those under way, and those that ended a short time ago."""

from __future__ import annotations

from collections import Counter

from orchestrator.adapters.monitoring.run_reader import RunReader
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.liveness import read_identity
from orchestrator.adapters.store.run_list import last_written, read_result, unfinished_state
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.monitoring.catalogue import MAX_RUNS, SHOWN_S
from orchestrator.core.monitoring.run_samples import RunView


class ShownRuns:
    """``live_states``: how many unfinished runs are in each state; ``unreadable``: how many runs
    could not be read at the last look.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._readers: dict[str, RunReader] = {}
        self.live_states: Counter[str] = Counter()
        self.unreadable = 0

    def look(self, now: float) -> list[RunView]:
        """Unfinished runs, and finished ones for a time; the latest of many."""
        self.unreadable, self.live_states = 0, Counter()
        shown = {
            f.run_id: f for f in map(self._layout.run, self._layout.run_ids()) if _is_shown(f, now)
        }
        latest = sorted(shown.values(), key=last_written)[-MAX_RUNS:]
        self._readers = {f.run_id: self._readers.get(f.run_id) or RunReader(f) for f in latest}
        return [view for reader in self._readers.values() if (view := self._view(reader))]

    def _view(self, reader: RunReader) -> RunView | None:
        try:
            result = read_result(reader.folder)
            identity = read_identity(reader.folder.coordinator)
            state = result.status.value if result else unfinished_state(identity)
            if result is None:
                self.live_states[state] += 1
            return reader.look(state, identity.at if identity else None, result)
        except (OSError, ValueError, OrchestrateError):
            self.unreadable += 1
            return None


def _is_shown(folder: RunFolder, now: float) -> bool:
    try:
        return now - folder.result.stat().st_mtime < SHOWN_S
    except OSError:
        return True
