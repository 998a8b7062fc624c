"""``suite run``: run the steps that are open, archive, show."""

from __future__ import annotations

import os
import sys

import click

from orchestrator.adapters.archive.deliver_archive import Destination, parse_destination
from orchestrator.adapters.record_log import holding
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.suite.suite_folder import read_steps, read_suite_result
from orchestrator.adapters.suite.suite_report import ArchivePlace, SuiteReport, report_object
from orchestrator.cli.load_cluster import load_cluster
from orchestrator.cli.options.shared import use_color
from orchestrator.cli.output import print_json
from orchestrator.cli.suites.begin_suite import (
    SuiteOptions,
    SuiteRun,
    not_writable,
    open_runs,
    open_suite,
)
from orchestrator.cli.suites.conclude_suite import conclude_suite, gather_report
from orchestrator.cli.suites.run_steps import StepRunner, SuiteView
from orchestrator.core.base.errors import BusyError, ExitCode, UsageError
from orchestrator.core.suite.step_records import StepOutcome, fold_steps
from orchestrator.core.verdict.result import Status
from orchestrator.view.progress.suite_views import SuiteJsonLines, SuiteLines, SuiteTable
from orchestrator.view.result.suite_text import suite_lines
from orchestrator.view.terminal.terminal import LineWriter, can_redraw
from orchestrator.view.terminal.text import clean_paragraph

MOST_SHOWN = 3  # other runs that are not over


def run_suite(options: SuiteOptions) -> int:
    """Run all open steps, archive, show; the exit code.

    Raises :class:`UsageError` before anything is contacted, and :class:`BusyError` where another
    process works on this run.
    """
    layout = Layout.from_environment(os.environ)
    destination = _destination(options)
    return pursue_suite(open_suite(layout, options), options, destination)


def pursue_suite(
    run: SuiteRun, options: SuiteOptions, destination: Destination | None = None
) -> int:
    """The same for a run that is open. Raises :class:`BusyError` likewise."""
    with holding(run.folder.lock) as alone:
        if not alone:
            what, remedy = f"another process works on suite run {run.folder.run_id}", "wait for it"
            raise BusyError(what, id="suite.busy", where=run.folder.path, remedy=remedy)
        archived = _archived(run)
        stopped = False if archived else _run_steps(run, options)
        report = gather_report(run.layout, run.folder, run.order, run.suite, _outcomes(run))
        if report.status is Status.STOPPED:
            return _show_stopped(options, run, report, stopped=stopped)
        return _conclude(run, options, destination, report, archived)


def _destination(options: SuiteOptions) -> Destination | None:
    if options.archive_to is None:
        return None
    return parse_destination(options.archive_to, load_cluster(options.cluster, "").nodes)


def _outcomes(run: SuiteRun) -> tuple[StepOutcome, ...]:
    return fold_steps(run.suite, read_steps(run.folder))


def _archived(run: SuiteRun) -> ArchivePlace | None:
    """Where the archive of this run is, if it was concluded before."""
    result = read_suite_result(run.folder) or {}
    place = result.get("archive")
    return ArchivePlace(**place) if place else None


def _run_steps(run: SuiteRun, options: SuiteOptions) -> bool:
    """Whether a signal asked to stop."""
    view = _open_view(options, run)
    runner = StepRunner(
        layout=run.layout, folder=run.folder, order=run.order, suite=run.suite, view=view
    )
    _show_open_runs(run, view)
    try:
        runner.leave_out()
        runner.run_open_steps()
    except OSError as error:
        raise not_writable(run.folder, error) from error
    finally:
        view.close()
    return runner.was_asked_to_stop


def _show_open_runs(run: SuiteRun, view: SuiteView) -> None:
    """Whatever is in the way of saying this is no reason not to run."""
    try:
        commands = open_runs(run)
    except UsageError as error:
        view.on_note(f"{error.what}: {error.where}")
        return
    for command in commands[:MOST_SHOWN]:
        view.on_note(f"another run of this suite is not over: {command}")
    if len(commands) > MOST_SHOWN:
        view.on_note(f"{len(commands) - MOST_SHOWN} more runs of it are not over")


def _open_view(options: SuiteOptions, run: SuiteRun) -> SuiteView:
    """Live where lines can be redrawn, else lines, both on stderr; or JSON on stdout."""
    if options.as_json:
        return SuiteJsonLines(LineWriter(sys.stdout), run.folder.run_id)
    if can_redraw(sys.stderr, os.environ):
        color = use_color(options.color, err=True)
        return SuiteTable(sys.stderr, _outcomes(run), color=color)
    return SuiteLines(LineWriter(sys.stderr))


def _conclude(
    run: SuiteRun,
    options: SuiteOptions,
    destination: Destination | None,
    report: SuiteReport,
    archived: ArchivePlace | None,
) -> int:
    """Archive what is not archived yet, and show; what keeps it from that is shown beside it."""
    code = report.exit_code
    try:
        archived = archived or conclude_suite(
            run, report, destination, lambda text: click.echo(text, err=True)
        )
    except BusyError as error:
        click.echo(clean_paragraph(f"orchestrate: {error}"), err=True)
        code = code or error.exit_code
    _show(options, report, archived, code)
    return int(code)


def _show_stopped(
    options: SuiteOptions, run: SuiteRun, report: SuiteReport, *, stopped: bool
) -> int:
    """Steps are open: nothing is archived yet."""
    code = ExitCode.INTERRUPTED if stopped else ExitCode.BUSY
    _show(options, report, None, code)
    click.echo(f"continue: {run.resume_command}", err=True)
    return int(code)


def _show(
    options: SuiteOptions, report: SuiteReport, archive: ArchivePlace | None, code: ExitCode
) -> None:
    if options.as_json:
        print_json("result", {**report_object(report, archive), "exit_code": int(code)})
        return
    LineWriter(sys.stdout).write(suite_lines(report, archive, color=use_color(options.color)))
