"""``orchestrate stop``: through the coordinator while it lives, else in its place."""

from __future__ import annotations

import functools
import signal
import time

import click

from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.liveness import (
    Liveness,
    ProcessIdentity,
    liveness,
    read_identity,
    signalling,
)
from orchestrator.adapters.store.run_list import read_result
from orchestrator.cli.options.view_options import ViewOptions
from orchestrator.core.base.errors import BusyError, DeadlineError, ExitCode
from orchestrator.core.verdict.node_status import VERIFIED_CLEAN
from orchestrator.view.tables.gathered import fold_names
from orchestrator.view.terminal.text import brief_text

POLL_S = 0.1
# Nodes of a finished run that were not seen clean at its end.
UNSURE = {"lost", "dirty"}
VIEW = ViewOptions(follow=False, quiet=False, verbose=False, color="auto", as_json=False)


def stop_run(layout: Layout, folder: RunFolder, *, now: bool, timeout_s: float) -> int:
    """The exit code: 0 when the run is over, 4 when a node could not be confirmed clean.

    Raises ``DeadlineError``, and ``BusyError`` for a run that another machine coordinates.
    """
    result = read_result(folder)
    if result is not None:
        click.echo(f"run {folder.run_id} is already over", err=True)
        unsure = any(node.state in UNSURE for node in result.nodes)
        return _sweep_again(folder) if unsure else int(ExitCode.DONE)
    identity = read_identity(folder.coordinator)
    state = liveness(identity)
    if identity is not None and state is Liveness.ELSEWHERE:
        raise BusyError(
            f"run {folder.run_id} is coordinated on {identity.host}",
            id="OR-STOP-002",
            remedy=f"on {identity.host}: orchestrate stop {folder.run_id}",
        )
    if identity is not None and state is Liveness.ALIVE:
        _ask_to_stop(identity, now=now)
        if _wait_for_result(folder, identity, timeout_s):
            return _tell_end(folder)
    return _stop_in_its_place(layout, folder, now=now)


def _ask_to_stop(identity: ProcessIdentity, *, now: bool) -> None:
    """One signal asks to end gracefully, a second and different one to kill."""
    with signalling(identity) as send:
        if send(signal.SIGTERM) and now:
            send(signal.SIGINT)


def _wait_for_result(folder: RunFolder, identity: ProcessIdentity, timeout_s: float) -> bool:
    """True when the result is there; False when the coordinator died without one."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        alive = liveness(identity) is Liveness.ALIVE
        if read_result(folder) is not None:
            return True
        if not alive:
            return False
        time.sleep(POLL_S)
    raise DeadlineError(
        f"run {folder.run_id} did not end within {timeout_s:g} s",
        id="OR-STOP-003",
        where=folder.path,
        remedy=f"orchestrate stop {folder.run_id} --now",
    )


def _sweep_again(folder: RunFolder) -> int:
    """Go to the nodes, end what the run still has there, and say what was found."""
    from orchestrator.engine.oneshot.cleanup import stop_run
    from orchestrator.engine.oneshot.interruptible import run_interruptibly

    visits = run_interruptibly(stop_run(folder))
    for visit in visits:
        click.echo(f"{visit.node}: {brief_text(visit.detail, 400)}", err=True)
    clean = all(visit.done for visit in visits)
    return int(ExitCode.DONE if clean else ExitCode.PREFLIGHT)


def _stop_in_its_place(layout: Layout, folder: RunFolder, *, now: bool) -> int:
    """Its coordinator is dead: take the run over, only to end it and to bring home what is left.
    Where there is no room for that, only to end it.
    """
    from orchestrator.cli.coordinate import coordinate_run
    from orchestrator.core.run.events import StopKind, StopRequested
    from orchestrator.engine.oneshot.cleanup import read_request
    from orchestrator.engine.run import resume
    from orchestrator.engine.support.context import RunContext
    from orchestrator.engine.support.problems import NOT_WRITTEN

    kind = StopKind.KILL if now else StopKind.GRACEFUL
    asked = StopRequested(kind=kind, by="orchestrate stop", at=time.time())
    context = RunContext(request=read_request(folder), snapshot=None, folder=folder, observers=[])
    try:
        coordinate_run(layout, context, VIEW, functools.partial(resume, stop=asked))
    except BusyError as error:
        if error.id != NOT_WRITTEN:
            raise
        click.echo(f"warning: {error}", err=True)
        return _sweep_again(folder)
    return _tell_end(folder)


def _tell_end(folder: RunFolder) -> int:
    """How the run ended, and what each of its nodes was seen to be after it."""
    result = read_result(folder)
    if result is None:
        return int(ExitCode.INTERRUPTED)
    seen = [node.name for node in result.nodes if VERIFIED_CLEAN in node.reason]
    left = [node for node in result.nodes if node.state in UNSURE]
    click.echo(f"run {folder.run_id} {_ended_how(result.status)}", err=True)
    if seen:
        click.echo(f"  verified clean: {brief_text(fold_names(seen), 400)}", err=True)
    for node in left:
        reason = f": {brief_text(node.reason, 400)}" if node.reason else ""
        click.echo(f"  not verified clean: {node.name} ({node.state}){reason}", err=True)
    if left:
        click.echo(f"  next: orchestrate stop {folder.run_id} once it answers again", err=True)
    return int(ExitCode.PREFLIGHT if left else ExitCode.DONE)


def _ended_how(status: str) -> str:
    return "is stopped" if status == "stopped" else f"ended before it was stopped: {status}"
