"""The end of a run on disk: reports and history, then the result that makes the run finished.

Whatever a crash left out before that, the coordinator that takes over writes again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from orchestrator.adapters.report.document import load_report
from orchestrator.adapters.report.html_report import render_html
from orchestrator.adapters.report.markdown import render_markdown
from orchestrator.adapters.store.atomic_files import write_atomic
from orchestrator.adapters.store.history import History, HistoryEntry
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.liveness import read_identity
from orchestrator.adapters.store.run_list import write_result
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.model.request import RunRequest
from orchestrator.core.verdict.result import Result


def write_reports(folder: RunFolder, result: Result) -> None:
    """``report.md`` and ``report.html``. Raises ``OSError``."""
    report = load_report(folder, result)
    for path, text in (
        (folder.report_markdown, render_markdown(report)),
        (folder.report_html, render_html(report)),
    ):
        write_atomic(path, text.encode("utf-8", "replace"))


def publish(
    layout: Layout, folder: RunFolder, request: RunRequest, result: Result, *, now: float
) -> list[str]:
    """Write everything that outlives the run; returns what went wrong without mattering to it.

    Only a failure to write the result itself is raised, as ``OSError``.
    """
    troubles = [
        *_attempt_reports(folder, result),
        *_attempt_history(layout, folder, request, result, now),
    ]
    write_result(folder, result)
    return troubles


def _attempt_reports(folder: RunFolder, result: Result) -> Iterator[str]:
    try:
        write_reports(folder, result)
    except OSError as error:
        yield f"the report could not be written: {error}"


def _attempt_history(
    layout: Layout, folder: RunFolder, request: RunRequest, result: Result, now: float
) -> Iterator[str]:
    identity = read_identity(folder.coordinator)
    entry = HistoryEntry(
        started=identity.at if identity else now,
        finished=now,
        preset=request.job.preset,
        code=request.code,
        result=result,
    )
    try:
        History(layout.history).record(entry)
    except (OSError, sqlite3.Error, OrchestrateError) as error:
        yield f"the run was not added to the history: {error}"
