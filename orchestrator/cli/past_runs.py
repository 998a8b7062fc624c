"""Runs of before, from their folders and from the history, for the commands that show them.

A history that cannot be read costs a warning, never the command: folders say the most.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from orchestrator.adapters.store.history import History
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.run_list import RunSummary, find_run, list_cleaned, list_runs
from orchestrator.core.base.errors import OrchestrateError, UsageError
from orchestrator.core.verdict.comparison import MetricComparison, compare
from orchestrator.core.verdict.result import Result

LOOKED_AT = 200  # runs of the same work; of these the latest that succeeded are compared with


def latest_runs(layout: Layout, *, limit: int) -> list[RunSummary]:
    """The latest runs, oldest of them first, with those whose folders were removed."""
    runs = list(list_runs(layout, limit=limit))
    with _readable(layout):
        runs += list_cleaned(layout, limit=limit)
    return sorted(runs, key=lambda run: run.started or 0.0)[-limit:]


def find_result(
    layout: Layout, run: str, require: Callable[[RunFolder], Result]
) -> tuple[Result, RunFolder]:
    """The result of a run as people name it, and its folder, which may be gone.

    Raises ``UsageError`` for a run that neither disk nor history knows; see ``require`` for one
    that has no result yet.
    """
    try:
        folder = find_run(layout, run)
    except UsageError:
        entry = None
        with _readable(layout):
            entry = History(layout.history).find(run)
        if entry is None:
            raise
        return entry.result, layout.run(entry.result.run_id)
    return require(folder), folder


def compared_with_earlier(layout: Layout, result: Result) -> tuple[MetricComparison, ...]:
    """The figures beside those of the runs of the same workload and cluster before this one."""
    earlier: list[Result] = []
    with _readable(layout):
        earlier = _earlier(History(layout.history), result)
    return compare(result, earlier)


def _earlier(history: History, result: Result) -> list[Result]:
    """Newest first; none where the history does not know the run itself, as its preset counts."""
    own = history.find(result.run_id)
    if own is None:
        return []
    same = history.recent(limit=LOOKED_AT, workload=result.workload, cluster=result.cluster)
    return [e.result for e in same if e.finished < own.finished and e.preset == own.preset]


@contextmanager
def _readable(layout: Layout) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError, OrchestrateError) as error:
        click.echo(f"warning: history {layout.history} not read: {error}", err=True)
