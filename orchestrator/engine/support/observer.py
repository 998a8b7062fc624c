"""Who watches a run: views, reports, metric files. The engine calls, nobody answers."""

from __future__ import annotations

from typing import Protocol

from orchestrator.core.run.events import Event
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.result import Result


class Observer(Protocol):
    """Callbacks in the order in which things happened. They must be quick and must not raise."""

    def on_event(self, at: float, event: Event, state: RunState) -> None:
        """``event`` happened at wall clock ``at`` (seconds) and led to ``state``."""

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        """Raw bytes of one stream, in order: ``rank-3.out``, ``rank-3.err``, ``launcher.err``."""

    def on_note(self, text: str) -> None:
        """Something worth a line that is no event: an environment being built, a retry."""

    def close(self, result: Result | None) -> None:
        """The run is over; ``None`` when the engine itself broke."""
