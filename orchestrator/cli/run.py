"""``orchestrate run``: a workload or a script of one's own, from inventory to verdict."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options import JobOptions, ViewOptions, job_options, pick, view_options

if TYPE_CHECKING:
    from orchestrator.core.request import RunRequest
    from orchestrator.core.result import Result
    from orchestrator.edges.store.layout import Layout, RunFolder
    from orchestrator.edges.sync.snapshot import Snapshot
    from orchestrator.engine.observer import Observer


@click.command(context_settings={"allow_interspersed_args": False})
@job_options
@view_options
@click.option("--run-id", metavar="ID", help="Instead of a generated one.")
@click.option(
    "--fail-on",
    type=click.Choice(["degraded"]),
    help="Exit 3 when the run got through on a lower rung only.",
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- SCRIPT ARGS...]")
def run(words: tuple[str, ...], run_id: str | None, fail_on: str | None, **given: Any) -> int:
    """Run a workload, or a script of your own, on the nodes of a cluster.

    \b
    orchestrate run --cluster local --workload finetune --set preset=tiny
    orchestrate run --cluster lab -- train.py --lr 1e-4
    """
    import os
    from dataclasses import replace

    from orchestrator.edges.store.layout import Layout

    options, view = pick(JobOptions, given), pick(ViewOptions, given)
    if view.follow is None:
        view = replace(view, follow=bool(words) and not view.as_json and not view.quiet)
    layout = Layout.from_environment(os.environ)
    chosen = _choose_run_id(layout, run_id, options, words)
    request, snapshot = _load(layout, options, words, chosen, fail_on)
    return _execute(layout, request, snapshot, view)


def _choose_run_id(
    layout: Layout, wanted: str | None, options: JobOptions, words: tuple[str, ...]
) -> str:
    import random
    from datetime import datetime
    from pathlib import PurePath

    from orchestrator.core.errors import UsageError
    from orchestrator.edges.store.layout import valid_run_id
    from orchestrator.edges.store.runs import new_run_id

    if wanted is None:
        name = PurePath(options.workload or next(iter(words), "run")).stem
        return new_run_id(datetime.now().astimezone(), name, random.SystemRandom())
    if not valid_run_id(wanted):
        what = f"not a run id: {wanted!r}"
        raise UsageError(what, id="run.id", remedy="use letters, digits, '.', '_' and '-'")
    if layout.run(wanted).path.exists():
        what = f"run {wanted} exists"
        raise UsageError(what, id="run.id", remedy=f"orchestrate show {wanted}, or another id")
    return wanted


def _load(
    layout: Layout, options: JobOptions, words: tuple[str, ...], run_id: str, fail_on: str | None
) -> tuple[RunRequest, Snapshot]:
    from dataclasses import replace

    from orchestrator.cli.loading import load_request, take_code

    request = load_request(options, words, run_id=run_id, fail_on_degraded=fail_on == "degraded")
    snapshot = take_code(layout, request.job)
    return replace(request, code=snapshot.digest), snapshot


def _execute(layout: Layout, request: RunRequest, snapshot: Snapshot, options: ViewOptions) -> int:
    import asyncio
    import time

    from orchestrator.cli.watching import open_view, show_result
    from orchestrator.edges.report.publish import publish
    from orchestrator.edges.store.series import SeriesWriter
    from orchestrator.engine.context import RunContext
    from orchestrator.engine.interrupts import Abandoned
    from orchestrator.engine.run import execute

    folder = _create(layout, request)
    view = open_view(options, request.run_id)
    observers: list[Observer] = [SeriesWriter(folder.metrics), view]
    context = RunContext(request=request, snapshot=snapshot, folder=folder, observers=observers)
    result: Result | None = None
    try:
        result = asyncio.run(execute(context))
    except Abandoned:
        result = None
    finally:
        for observer in observers:
            observer.close(result)
    if result is None:
        return show_result(options, view, _abandoned(request), folder.path)
    with _undisturbed():
        troubles = publish(layout, folder, request, result, now=time.time())
    for trouble in troubles:
        click.echo(f"warning: {trouble}", err=True)
    return show_result(options, view, result, folder.path)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals that come while the verdict is written must not cost it: it takes a moment."""
    import signal

    from orchestrator.engine.interrupts import HANDLED

    before = {number: signal.signal(number, signal.SIG_IGN) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _create(layout: Layout, request: RunRequest) -> RunFolder:
    """The run's folder with what ``attach``, ``stop`` and ``clean`` need, before any contact."""
    import time

    from orchestrator.core.codec import to_json
    from orchestrator.edges.store.files import write_json
    from orchestrator.edges.store.liveness import identify_self, write_identity

    folder = layout.run(request.run_id)
    folder.create()
    write_json(folder.request, to_json(request))
    write_identity(folder.coordinator, identify_self(time.time()))
    return folder


def _abandoned(request: RunRequest) -> Result:
    """What to say when the user left without waiting for the clean-up."""
    from orchestrator.core.errors import ExitCode
    from orchestrator.core.result import FailureResult, Result, Status

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
