"""Runs of before, from their folders and from the history, for the commands that show them.

A history that cannot be read costs a warning, never the command: folders say the most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.run_list import RunSummary, find_run, list_runs
from orchestrator.core.base.errors import OrchestrateError, UsageError
from orchestrator.core.history.earlier_runs import (
    COMPARED_RUNS,
    MetricComparison,
    compare_with_earlier,
)
from orchestrator.core.history.run_record import RunQuery, RunRecord
from orchestrator.core.verdict.result import Result

READ_RUNS = 5 * COMPARED_RUNS  # of the same key; of these the latest that succeeded count


def latest_runs(layout: Layout, *, limit: int) -> list[RunSummary]:
    """The latest runs, oldest of them first, with those whose folders were removed."""
    runs = list(list_runs(layout, limit=limit))
    with _readable():
        runs += _list_cleaned(layout, limit)
    return sorted(runs, key=lambda run: run.started or 0.0)[-limit:]


def _list_cleaned(layout: Layout, limit: int) -> list[RunSummary]:
    """Those of the latest runs of the history whose folders were removed."""
    present = set(layout.run_ids())
    history = open_history(layout)
    runs = history.read_runs(RunQuery(limit=limit))
    cleaned = [run for run in runs if run.run_id not in present]
    results = {run.run_id: history.read_result(run.run_id) for run in cleaned}
    return [_summary(run, results[run.run_id]) for run in cleaned]


def _summary(run: RunRecord, result: Result | None) -> RunSummary:
    return RunSummary(
        run_id=run.run_id,
        state=run.status.value,
        cluster=run.cluster,
        workload=run.workload,
        started=run.started,
        seconds=sum(result.timings.values()) if result else None,
        exit_code=int(result.exit_code) if result else None,
        cleaned=True,
    )


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
        result = _remembered(layout, run)
        if result is None:
            raise
        return result, layout.run(result.run_id)
    return require(folder), folder


def find_folder(layout: Layout, run: str) -> RunFolder:
    """The folder of a run as people name it.

    Raises ``UsageError``; for a run that only the history knows it says that the folder is gone.
    """
    try:
        return find_run(layout, run)
    except UsageError:
        result = _remembered(layout, run)
        if result is None:
            raise
        raise UsageError(
            f"the folder of run {result.run_id} was removed, with its logs and files",
            id="OR-STORE-003",
            where=layout.runs,
            why="orchestrate clean removes it; the history keeps the result",
            remedy=f"orchestrate show {result.run_id}",
        ) from None


def _remembered(layout: Layout, run: str) -> Result | None:
    """As the history has it, where it can be read."""
    result = None
    with _readable():
        history = open_history(layout)
        found = history.find_runs(run)
        if len(found) == 1:
            result = history.read_result(found[0].run_id)
    return result


def compared_with_earlier(layout: Layout, result: Result) -> tuple[MetricComparison, ...]:
    """The figures beside those of the runs before it that are like it: those with its key."""
    earlier: tuple[RunRecord, ...] = ()
    with _readable():
        history = open_history(layout)
        own = next(
            (run for run in history.find_runs(result.run_id) if run.run_id == result.run_id), None
        )
        if own is not None:
            like = RunQuery(key_digest=own.key.digest, before=own.finished, limit=READ_RUNS)
            earlier = history.read_runs(like)
    return compare_with_earlier(result, earlier)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (OSError, OrchestrateError) as error:
        click.echo(f"warning: history not read: {error}", err=True)
