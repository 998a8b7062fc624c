"""What coordinates a run to its verdict, whoever begins or continues it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

import click

from orchestrator.adapters.notify.run_notices import FallbackNotices
from orchestrator.adapters.store.atomic_files import write_json
from orchestrator.adapters.store.claim import claimed
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.cli.open_view import open_view, show_left, show_result
from orchestrator.cli.options.view_options import ViewOptions
from orchestrator.core.base.codec import to_json
from orchestrator.core.base.errors import ExitCode, UsageError
from orchestrator.core.model.request import RunRequest
from orchestrator.core.verdict.result import FailureResult, Result, Status
from orchestrator.engine.run import execute
from orchestrator.engine.support.context import RunContext
from orchestrator.engine.support.interrupts import Abandoned, Interrupts
from orchestrator.engine.support.load_end import EndLoader
from orchestrator.engine.support.observer import Observer
from orchestrator.engine.support.problems import not_written
from orchestrator.view.progress.following import ways_on
from orchestrator.view.tables.plan_text import unattended_text
from orchestrator.view.terminal.outlet import Outlets, independent_output
from orchestrator.view.terminal.text import format_seconds

Drive = Callable[[RunContext], Coroutine[Any, Any, Result]]

# Before a suspended process is silent, what it says about that should be on the screen.
LAST_WORDS_S = 1.0
SHOW_CURSOR = "\x1b[?25h"


def begin_run(
    layout: Layout, context: RunContext, options: ViewOptions, make: Callable[[], None]
) -> int:
    """``make`` the run's folder and coordinate the run; from then on every request to stop leads
    to a result. Raises :class:`UsageError` when the folder cannot be made, else as
    :func:`coordinate_run`.
    """
    with _outlive_terminal(context) as (ready, outlets):
        try:
            make()
        except OSError as error:
            raise _no_folder(context.folder, error) from error
        return _coordinate_claimed(layout, ready, options, outlets, execute)


def coordinate_run(
    layout: Layout, context: RunContext, options: ViewOptions, drive: Drive = execute
) -> int:
    """Run the engine to the verdict under the user's eyes, publish and show it; the exit code.

    ``drive`` is the way into the engine; it is called while nobody else coordinates the run, and
    with ``context`` made complete. ``context.observers`` see everything too. Raises
    :class:`BusyError` when somebody else coordinates the run or nothing can be written here, and
    what the engine raises.
    """
    with _outlive_terminal(context) as (ready, outlets):
        return _coordinate_claimed(layout, ready, options, outlets, drive)


def create_run(
    folder: RunFolder, request: RunRequest, remember: Callable[[RunFolder], None]
) -> None:
    """The run's folder with what it was asked to do and what ``remember`` writes, before any
    contact: all of it or nothing, for nobody can resume half of it. Raises ``OSError``.
    """
    staged = RunFolder(folder.path.with_name(f".new-{os.getpid()}-{folder.run_id}"))
    staged.create()
    write_json(staged.request, to_json(request))
    remember(staged)
    staged.path.rename(folder.path)


@contextmanager
def _outlive_terminal(context: RunContext) -> Iterator[tuple[RunContext, Outlets]]:
    """While inside, signals are kept for the engine; a terminal that closes ends nothing.

    Afterwards they end the wait for readers, and then nothing: the process is about to exit.
    """
    interrupts = Interrupts()
    interrupts.listen()
    try:
        with independent_output() as outlets:
            interrupts.on_hangup = outlets.hang_up
            try:
                yield replace(context, interrupts=interrupts), outlets
            finally:
                interrupts.on_over = outlets.abandon
        if refusal := outlets.refusal():
            run = context.request.run_id
            all_of_it = f"orchestrate logs {run}, orchestrate show {run} --json"
            _warn(f"stdout was not written to its end: {refusal}; all of it: {all_of_it}")
    finally:
        interrupts.ignore()


def _warn(text: str) -> None:
    """On stderr, if that takes it."""
    with suppress(OSError):
        click.echo(f"warning: {text}", err=True)


def _coordinate_claimed(
    layout: Layout, context: RunContext, options: ViewOptions, outlets: Outlets, drive: Drive
) -> int:
    request, folder = context.request, context.folder
    with _claim_folder(folder):
        view = open_view(options, request.run_id)
        context.interrupts.on_suspend = lambda: _suspend_coordinator(view, outlets, request)

        def leave() -> int:
            return show_left(options, view, abandoned_result(request))

        context.interrupts.on_overdue = lambda: _end_at_once(view, outlets, leave)
        result = _run_engine(layout, context, view, drive)
        if result is None:
            return leave()
        from orchestrator.adapters.report.finished_run import FinishedRun
        from orchestrator.adapters.report.publish import publish_run

        try:
            now = context.clock.wall()
            finished = FinishedRun(
                layout=layout, folder=folder, request=request, result=result, now=now
            )
            troubles = publish_run(finished)
        except OSError as error:
            raise not_written(folder, error) from error
    context.interrupts.on_over = outlets.abandon
    if left_out := outlets.be_patient():
        why = "the reader of stdout was too slow"
        where = f"all of them: orchestrate logs {request.run_id}"
        troubles.append(f"{left_out} lines dropped: {why}; {where}")
    for trouble in troubles:
        click.echo(f"warning: {trouble}", err=True)
    return show_result(options, view, result, folder.path)


@contextmanager
def _claim_folder(folder: RunFolder) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(claimed(folder, at=time.time()))
        except OSError as error:
            raise not_written(folder, error) from error
        yield


def _no_folder(folder: RunFolder, error: OSError) -> UsageError:
    return UsageError(
        f"the run cannot be begun: {error.strerror or error}",
        id="OR-STORE-011",
        where=folder.path,
        remedy="free space there, or let ORCHESTRATE_HOME name another folder",
    )


def _run_engine(layout: Layout, context: RunContext, view: Observer, drive: Drive) -> Result | None:
    """The verdict; None when the user left before there was one."""
    notices = FallbackNotices(layout, view.on_note)
    predictions = _predictions(layout, context, view)
    observers = [*context.observers, *predictions, notices, EndLoader(), view]
    result: Result | None = None
    try:
        result = asyncio.run(drive(replace(context, observers=observers)))
    except Abandoned:
        result = None
    finally:
        for observer in observers:
            observer.close(result)
    return result


def _predictions(layout: Layout, context: RunContext, view: Observer) -> Iterator[Observer]:
    """Who predicts the run, where its workload says from what."""
    if context.request.job.workload.is_predicted:
        from orchestrator.adapters.catalog.catalog import Catalog
        from orchestrator.adapters.costs.cost_files import CostFiles
        from orchestrator.adapters.costs.predict_run import PredictionWriter

        files = CostFiles(Catalog.from_environment(os.environ), layout)
        yield PredictionWriter(files, context.folder, view.on_note)


def _end_at_once(view: Observer, outlets: Outlets, leave: Callable[[], int]) -> None:
    """Say what is to be said, and end without giving links back: their nodes do not answer."""
    view.close(None)
    code = leave()
    outlets.flush(LAST_WORDS_S)
    os._exit(code)


def _suspend_coordinator(view: Observer, outlets: Outlets, request: RunRequest) -> None:
    """Ctrl-Z: say how long the ranks live on, stop, and say how long that was."""
    view.on_note(f"suspended; {unattended_text(request.budgets, request.run_id)}")
    if sys.stderr.isatty():
        sys.stderr.write(SHOW_CURSOR)
    outlets.flush(LAST_WORDS_S)
    since = time.monotonic()
    os.kill(os.getpid(), signal.SIGSTOP)
    view.on_note(f"continued after {format_seconds(time.monotonic() - since)}")


def abandoned_result(request: RunRequest) -> Result:
    """What to say when the user left without waiting for the clean-up."""
    return Result(
        run_id=request.run_id,
        status=Status.STOPPED,
        exit_code=ExitCode.INTERRUPTED,
        cluster=request.cluster.name,
        workload=request.job.workload.name,
        launcher=request.launcher,
        world_size=0,
        failure=FailureResult(
            id="OR-STOP-001",
            cause="you did not wait until the nodes were clean: ranks may still run, unattended; "
            + unattended_text(request.budgets, request.run_id),
            remedy=ways_on(request.run_id),
        ),
    )
