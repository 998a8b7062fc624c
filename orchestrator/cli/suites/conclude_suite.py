"""The end of a suite: summary, archive, where the archive is brought, the result."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace

from orchestrator.adapters.archive.deliver_archive import Destination, move_archive
from orchestrator.adapters.store.atomic_files import write_atomic, write_json
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.store.run_list import read_result
from orchestrator.adapters.suite.suite_archive import archive_suite
from orchestrator.adapters.suite.suite_folder import SuiteFolder, SuiteOrder
from orchestrator.adapters.suite.suite_report import (
    ArchivePlace,
    SuiteReport,
    report_object,
    suite_html,
    suite_markdown,
)
from orchestrator.cli.suites.begin_suite import SuiteRun
from orchestrator.core.base.errors import BusyError, OrchestrateError
from orchestrator.core.suite.step_records import StepOutcome
from orchestrator.core.suite.suite_model import Suite


def gather_report(
    layout: Layout,
    folder: SuiteFolder,
    order: SuiteOrder,
    suite: Suite,
    outcomes: tuple[StepOutcome, ...],
) -> SuiteReport:
    """What became of the suite, with the results of its runs."""
    results = {
        outcome.step: result
        for outcome in outcomes
        if outcome.run_id and (result := read_result(layout.run(outcome.run_id))) is not None
    }
    return SuiteReport(
        suite=suite,
        run_id=folder.run_id,
        cluster=order.cluster,
        outcomes=outcomes,
        results=results,
        ended=time.time(),
    )


def conclude_suite(
    run: SuiteRun,
    report: SuiteReport,
    destination: Destination | None,
    say: Callable[[str], None],
) -> ArchivePlace:
    """Write summary, result and archive, and move the archive where it is to be.

    Raises :class:`BusyError` where the disk is full or the destination does not take it: nothing
    that was done is lost, and ``--resume`` repeats this part alone.
    """
    try:
        _write_summary(run.layout, run.folder, report)
        say("archiving")
        place = archive_suite(run.layout, run.folder, report)
        if destination is not None:
            place = replace(place, path=move_archive(run.folder.archive, destination))
        write_json(run.folder.result, report_object(report, place))
    except (OSError, OrchestrateError) as error:
        raise _not_archived(run, report, error) from error
    return place


def _write_summary(layout: Layout, folder: SuiteFolder, report: SuiteReport) -> None:
    write_atomic(folder.summary_markdown, suite_markdown(report).encode("utf-8", "replace"))
    write_atomic(folder.summary_html, suite_html(report).encode("utf-8", "replace"))
    write_json(folder.result, report_object(report, None))
    runs = folder.path / "runs"  # so that the summary's links to runs work here, too
    if not runs.is_symlink():
        runs.symlink_to(layout.runs.resolve())


def _not_archived(run: SuiteRun, report: SuiteReport, error: Exception) -> BusyError:
    free = shutil.disk_usage(run.folder.path).free >> 20
    why = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return BusyError(
        f"{report.counts}; the archive could not be written or moved",
        id="suite.archive",
        where=run.folder.path,
        why=f"{why} ({free} MiB are free there)",
        remedy=f"every run is kept; when it can be written: {run.resume_command}",
    )
