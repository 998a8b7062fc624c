"""Waiting for a run that somebody else coordinates."""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.core.errors import BusyError
from orchestrator.core.result import Result
from orchestrator.edges.store.layout import RunFolder
from orchestrator.edges.store.liveness import Liveness, liveness, read_identity
from orchestrator.edges.store.runs import read_result

POLL_S = 0.1


def follow(folder: RunFolder, advance: Callable[[], bool]) -> Result:
    """Call ``advance`` until the run has its result and nothing new comes; returns the result.

    Waits as long as the coordinator lives. Raises :class:`BusyError` when it died without a result.
    """
    while True:
        # Asked before reading: whatever was written before these answers is read after them.
        result, alive = read_result(folder), _maybe_alive(folder)
        if advance():
            continue
        if result is not None:
            return result
        if not alive:
            raise BusyError(
                f"run {folder.run_id} has no result and its coordinator is gone",
                id="OR-STORE-007",
                where=folder.path,
                remedy=f"orchestrate stop {folder.run_id} ends what it left on the nodes",
            )
        time.sleep(POLL_S)


def _maybe_alive(folder: RunFolder) -> bool:
    return liveness(read_identity(folder.coordinator)) is not Liveness.DEAD
