"""Runs of this home as TorchX asks about them: how they are, on which nodes, what they wrote."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator.adapters.store.layout import Layout, RunFolder, valid_run_id
from orchestrator.adapters.store.liveness import Liveness, liveness, read_identity
from orchestrator.adapters.store.run_list import read_result
from orchestrator.cli.torchx_plugin.translate import ROLE_VARIABLE
from orchestrator.core.base.command import reveal_secret
from orchestrator.core.run import machine
from orchestrator.core.run.events import Phase
from orchestrator.core.verdict.result import Result, Status
from orchestrator.engine.oneshot.cleanup import read_request
from orchestrator.engine.support.replay import replay_journal
from orchestrator.view.progress.following import ways_on
from orchestrator.view.terminal.log_lines import LogLines, Source
from orchestrator.view.terminal.log_tail import LogTail

POLL_S = 0.1
LISTED = 1000
PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED = (
    *("PENDING", "RUNNING", "SUCCEEDED"),
    *("FAILED", "CANCELLED"),
)
BEFORE_RANKS = frozenset(list(Phase)[: list(Phase).index(Phase.WATCH)])
OF_RUNS = {
    Status.SUCCEEDED: SUCCEEDED,
    Status.DEGRADED: SUCCEEDED,
    Status.FAILED: FAILED,
    Status.STOPPED: CANCELLED,
}
OF_NODES = {"used": SUCCEEDED, "stopped": CANCELLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRun:
    """A run by the names of TorchX's states. ``replicas``: (node, state) in rank order."""

    run_id: str
    state: str
    message: str
    role: str
    replicas: tuple[tuple[str, str], ...]


def find_app(layout: Layout, app_id: str) -> RunFolder | None:
    """The run's folder, if there is such a run."""
    folder = layout.run(app_id) if valid_run_id(app_id) else None
    return folder if folder is not None and folder.request.exists() else None


def list_apps(layout: Layout) -> Iterator[AppRun]:
    """The latest runs of this home, also those that TorchX did not start."""
    for run_id in layout.run_ids()[-LISTED:]:
        if (folder := find_app(layout, run_id)) is not None:
            yield look_at(folder)


def look_at(folder: RunFolder) -> AppRun:
    """How the run is now. Raises ``UsageError`` and ``InternalError`` for one that is damaged."""
    result = read_result(folder)
    request = read_request(folder)
    named = {"run_id": folder.run_id, "role": reveal_secret(request.env.get(ROLE_VARIABLE, ""))}
    named["role"] = named["role"] or request.job.workload.name
    if result is not None:
        state = OF_RUNS[result.status]
        replicas = tuple((n.name, OF_NODES.get(n.state, FAILED)) for n in result.used)
        return AppRun(state=state, message=_message(result), replicas=replicas, **named)
    known = replay_journal(folder, request).state
    state = PENDING if machine.current_phase(known) in BEFORE_RANKS else RUNNING
    names = [share.name for share in known.plan.nodes] if known.plan is not None else []
    gone = liveness(read_identity(folder.coordinator)) is Liveness.DEAD
    message = f"its coordinator is gone; {ways_on(folder.run_id)}" if gone else ""
    return AppRun(state=state, message=message, replicas=tuple((n, state) for n in names), **named)


def _message(result: Result) -> str:
    failure = result.failure
    if failure is None:
        return result.status.value
    return f"{failure.cause} ({failure.id}): {failure.remedy}"


def log_lines(
    folder: RunFolder, replica: int, stream: str | None, grep: str | None, *, follow: bool
) -> Iterator[str]:
    """Lines that the ranks of one node wrote, each with its end; with ``follow`` until the run is
    over. ``stream``: ``out``, ``err`` or None for both. Raises ``LookupError`` for a node that the
    run does not have.
    """
    replicas = look_at(folder).replicas
    if not 0 <= replica < len(replicas):
        raise LookupError(f"run {folder.run_id} has {len(replicas)} replicas, no {replica}")
    ready: list[str] = []
    lines = LogLines(ready.extend, prefix=False, grep=re.compile(grep) if grep else None)
    tail = LogTail(folder, _wanted(replicas[replica][0], stream))
    while True:
        over = not follow or _is_over(folder)  # asked before reading: what came then is read
        fed = tail.read(lines.feed)
        if over and not fed:
            lines.finish()
        yield from (f"{line}{os.linesep}" for line in ready)
        ready.clear()
        if over and not fed:
            return
        if not fed:
            time.sleep(POLL_S)


def _wanted(node: str, stream: str | None) -> Callable[[Source], bool]:
    return lambda source: (
        source.node == node and source.rank is not None and stream in (None, source.stream)
    )


def _is_over(folder: RunFolder) -> bool:
    """Also when nobody is there who could write more."""
    dead = liveness(read_identity(folder.coordinator)) is Liveness.DEAD
    return dead or read_result(folder) is not None
