"""What coordinates a run to its verdict, whoever begins or continues it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import click

from orchestrator.cli.options import ViewOptions
from orchestrator.cli.watching import open_view, show_result
from orchestrator.core.codec import to_json
from orchestrator.core.errors import ExitCode
from orchestrator.core.request import RunRequest
from orchestrator.core.result import FailureResult, Result, Status
from orchestrator.edges.report.publish import publish
from orchestrator.edges.store.claim import claimed
from orchestrator.edges.store.files import write_json
from orchestrator.edges.store.layout import Layout, RunFolder
from orchestrator.engine.context import RunContext
from orchestrator.engine.interrupts import HANDLED, Abandoned
from orchestrator.engine.observer import Observer
from orchestrator.engine.run import execute

Drive = Callable[[RunContext], Coroutine[Any, Any, Result]]


def create_run(layout: Layout, request: RunRequest) -> RunFolder:
    """The run's folder with what it was asked to do, before any contact. Raises ``OSError``."""
    folder = layout.run(request.run_id)
    folder.create()
    write_json(folder.request, to_json(request))
    return folder


def coordinate(
    layout: Layout, context: RunContext, options: ViewOptions, drive: Drive = execute
) -> int:
    """Run the engine to the verdict under the user's eyes, publish and show it; the exit code.

    ``drive`` is the way into the engine; it is called while nobody else coordinates the run.
    ``context.observers`` see everything too. Raises :class:`BusyError` when somebody else
    coordinates the run, and what the engine raises.
    """
    with claimed(context.folder, at=time.time()):
        view = open_view(options, context.request.run_id)
        result = _run_engine(context, view, drive)
        if result is None:
            return show_result(options, view, _abandoned(context.request), context.folder.path)
        with _undisturbed():
            troubles = publish(
                layout, context.folder, context.request, result, now=context.clock.wall()
            )
    for trouble in troubles:
        click.echo(f"warning: {trouble}", err=True)
    return show_result(options, view, result, context.folder.path)


def _run_engine(context: RunContext, view: Observer, drive: Drive) -> Result | None:
    """The verdict; None when the user left before there was one."""
    observers = [*context.observers, view]
    result: Result | None = None
    try:
        result = asyncio.run(drive(replace(context, observers=observers)))
    except Abandoned:
        result = None
    finally:
        for observer in observers:
            observer.close(result)
    return result


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals that come while the verdict is written must not cost it: it takes a moment."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _abandoned(request: RunRequest) -> Result:
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
            cause="left on request, before the nodes confirmed that they are clean",
            remedy=f"orchestrate stop {request.run_id}",
        ),
    )
