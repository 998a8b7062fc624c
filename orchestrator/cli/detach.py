"""``run --detach``: the coordinator in the background, its beginning under the user's eyes."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import click

from orchestrator.adapters.background import fork_away
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.liveness import ProcessIdentity, read_identity, signalling
from orchestrator.cli.coordinate import abandoned_result, coordinate_run
from orchestrator.cli.open_view import open_view, show_result
from orchestrator.cli.options.job_options import JobOptions
from orchestrator.cli.options.option_values import CONTINUE
from orchestrator.cli.options.view_options import ViewOptions
from orchestrator.cli.outermost import SCHEMA_VERSION
from orchestrator.core.run import machine
from orchestrator.core.run.events import Phase
from orchestrator.engine.support.context import RunContext
from orchestrator.engine.support.interrupts import LEAVE_AT, Interrupts
from orchestrator.view.progress.following import coordinator_gone, follow_run
from orchestrator.view.progress.json_lines import dump_line
from orchestrator.view.progress.replay_view import Replay
from orchestrator.view.terminal.terminal import LineWriter

POLL_S = 0.05
# A run that could not reserve its nodes for this long queues.
QUEUES_S = 2.0
# A coordinator that has a result is given this long to end.
LAST_STEPS_S = 10.0


def as_foreground(options: JobOptions) -> JobOptions:
    """A run in the background goes on without its coordinator, unless something else was asked."""
    decided = options.unattended or any(b.startswith("lease=") for b in options.budgets)
    return options if decided else replace(options, unattended=CONTINUE)


def run_detached(
    layout: Layout, context: RunContext, options: ViewOptions, make: Callable[[], None]
) -> int:
    """``make`` the run's folder and coordinate the run in the background; return when the ranks
    run, or with the run's end.

    Returns twice: the other time in the coordinator, when the run is over. No thread and no event
    loop may exist yet. Raises ``OSError``, and :class:`BusyError` when the coordinator died.
    """
    asked = Interrupts()
    asked.on_hangup = lambda: os._exit(128 + signal.SIGHUP)
    asked.listen()
    make()
    alive = fork_away(context.folder.coordinator_log)
    if alive is None:
        unseen = ViewOptions(follow=False, quiet=False, verbose=False, color="never", as_json=False)
        return coordinate_run(layout, context, unseen)
    with os.fdopen(alive, "rb"):
        identity = _wait_for_coordinator(context.folder, alive)
        return _accompany_run(context, options, asked, identity, alive)


def _wait_for_coordinator(folder: RunFolder, alive: int) -> ProcessIdentity:
    """Who coordinates the run. ``alive`` ends with that process."""
    while (identity := read_identity(folder.coordinator)) is None:
        if select.select([alive], [], [], POLL_S)[0]:
            raise coordinator_gone(folder)
    return identity


def _accompany_run(
    context: RunContext,
    options: ViewOptions,
    asked: Interrupts,
    identity: ProcessIdentity,
    alive: int,
) -> int:
    folder = context.folder
    view = open_view(options, folder.run_id)
    replay = Replay(folder, [view])
    try:
        with signalling(identity) as send:
            pass_on = _relay_requests(asked, send)
            result = follow_run(
                folder,
                lambda: pass_on() or replay.advance(),
                until=_detach_condition(asked, replay),
            )
    finally:
        view.close(None)
    if result is not None:
        # Its result comes before its report, and before the run is free for `resume`.
        select.select([alive], [], [], LAST_STEPS_S)
    elif len(asked.asked) >= LEAVE_AT:
        result = abandoned_result(context.request)
    if result is not None:
        return show_result(options, view, result, folder.path)
    asked.ignore()
    _tell_user(options, folder.run_id, machine.current_phase(replay.state))
    return 0


def _relay_requests(asked: Interrupts, send: Callable[[int], bool]) -> Callable[[], bool]:
    """A function that passes on to the coordinator what the user asked since its last call."""
    passed_on = 0

    def relay() -> bool:
        nonlocal passed_on
        if passed_on == len(asked.asked):
            return False
        send(asked.asked[passed_on])
        passed_on += 1
        return True

    return relay


def _detach_condition(asked: Interrupts, replay: Replay) -> Callable[[], bool]:
    """Whether the foreground may go: when the ranks run, or the run queues for what others hold;
    after Ctrl-C only with the end, or when asked to leave at once.
    """
    queues_since: float | None = None

    def ready() -> bool:
        nonlocal queues_since
        if asked.asked:
            return len(asked.asked) >= LEAVE_AT
        phase, now = machine.current_phase(replay.state), time.monotonic()
        if phase is not Phase.RESERVE or replay.state.request.wait_s is None:
            queues_since = None
        elif queues_since is None:
            queues_since = now
        return phase is Phase.WATCH or (queues_since is not None and now > queues_since + QUEUES_S)

    return ready


def _tell_user(options: ViewOptions, run_id: str, phase: Phase) -> None:
    """How to come back: the id is data, the rest is for people."""
    if options.as_json:
        record = {"type": "detached", "schema_version": SCHEMA_VERSION, "run_id": run_id}
        LineWriter(sys.stdout).line(dump_line({**record, "phase": phase.value}))
        return
    LineWriter(sys.stdout).line(run_id)
    if not options.quiet:
        state = "launched" if phase is Phase.WATCH else "it queues"
        click.echo(
            f"{state}; the run continues in the background\n"
            f"  orchestrate attach {run_id}    follow it; Ctrl-C leaves it alone\n"
            f"  orchestrate logs -f {run_id}   the output of its ranks\n"
            f"  orchestrate stop {run_id}      end it and clean up",
            err=True,
        )
