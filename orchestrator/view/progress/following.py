"""Waiting for a run that somebody else coordinates."""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.liveness import Liveness, liveness, read_identity
from orchestrator.adapters.store.run_list import read_result
from orchestrator.core.base.errors import BusyError
from orchestrator.core.verdict.result import Result
from orchestrator.view.result.failure_screen import tail_lines
from orchestrator.view.terminal.text import brief_text

POLL_S = 0.1
TOLD_LINES = 8
ERROR = "orchestrate: "  # how a command begins to say why it failed


def follow_run(
    folder: RunFolder, advance: Callable[[], bool], until: Callable[[], bool] = lambda: False
) -> Result | None:
    """Call ``advance`` until the run has its result and nothing new comes; returns the result.

    None as soon as ``until`` holds. Waits as long as the coordinator lives. Raises
    :class:`BusyError` when it died without a result.
    """
    while True:
        # Asked in this order before reading: a dead coordinator writes no result any more, and
        # whatever was written before a result is read after it.
        alive, result = _maybe_alive(folder), read_result(folder)
        if advance():
            continue
        if result is not None:
            return result
        if until():
            return None
        if not alive:
            raise coordinator_gone(folder)
        time.sleep(POLL_S)


def coordinator_gone(folder: RunFolder) -> BusyError:
    """Nobody coordinates the run, and it has no result."""
    run, said = folder.run_id, tail_lines(folder.coordinator_log, TOLD_LINES)
    errors = [number for number, line in enumerate(said) if line.startswith(ERROR)]
    return BusyError(
        f"run {run} has no result and its coordinator is gone",
        id="OR-STORE-007",
        where=folder.path,
        why="\n    ".join(brief_text(line, 300) for line in said[errors[-1] :]) if errors else "",
        remedy=ways_on(run),
    )


def ways_on(run: str) -> str:
    """What to do about a run that nobody coordinates."""
    return (
        f"orchestrate stop {run}: clean up; orchestrate resume {run}: continue "
        "(a pending stop completes first, then resume again)"
    )


def _maybe_alive(folder: RunFolder) -> bool:
    return liveness(read_identity(folder.coordinator)) is not Liveness.DEAD
