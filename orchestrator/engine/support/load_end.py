"""What only the end of a run needs, or a hang, is imported once its ranks run, and not before they
can start.

Not at the end either, where it can be avoided: whoever installs another version meanwhile would mix
the two.
"""

from __future__ import annotations

import contextlib
import importlib
import threading

from orchestrator.core.run.events import Event, RankStarted
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.result import Result

MODULES = (
    "orchestrator.adapters.notify.outbox",
    "orchestrator.adapters.report.finished_run",
    "orchestrator.adapters.report.publish",
    "orchestrator.engine.node.hang_inspection",
    "orchestrator.engine.support.diagnose_run",
)
# The first lines of the ranks come first.
AFTER_S = 2.0


class EndLoader:
    """An observer that imports ``MODULES`` in a thread, some time after the first rank started."""

    def __init__(self, after_s: float = AFTER_S) -> None:
        self._timer = threading.Timer(after_s, load_modules)
        self._timer.daemon = True
        self._started = False

    def on_event(self, at: float, event: Event, state: RunState) -> None:
        del at, state
        if isinstance(event, RankStarted) and not self._started:
            self._started = True
            self._timer.start()

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        """Nothing follows from it."""

    def on_note(self, text: str) -> None:
        """Nor from this."""

    def close(self, result: Result | None) -> None:
        """A run that was shorter imports each where it is needed."""
        del result
        self._timer.cancel()


def load_modules() -> None:
    """All of them. One that cannot be imported is reported where it is needed."""
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
