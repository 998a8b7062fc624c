"""The end of a run on disk: every export, then the result that makes the run finished.

Whatever a crash left out before that, the coordinator that takes over writes again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.adapters.history.database import HistoryUnavailable
from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.notify.run_notices import post_end
from orchestrator.adapters.report.exporters.mlflow_export import start_mlflow_export
from orchestrator.adapters.report.exporters.prometheus_textfile import write_textfile
from orchestrator.adapters.report.finished_run import Exporter, FinishedRun
from orchestrator.adapters.report.html_report import render_html
from orchestrator.adapters.report.markdown import render_markdown
from orchestrator.adapters.store.atomic_files import write_atomic
from orchestrator.adapters.store.run_list import write_result
from orchestrator.core.base.errors import OrchestrateError


def write_markdown(run: FinishedRun) -> None:
    """``report.md``."""
    text = render_markdown(run.report)
    write_atomic(run.folder.report_markdown, text.encode("utf-8", "replace"))


def write_html(run: FinishedRun) -> None:
    """``report.html``."""
    text = render_html(run.report)
    write_atomic(run.folder.report_html, text.encode("utf-8", "replace"))


def record_history(run: FinishedRun) -> None:
    """The run's entry in the history. A database that did not answer for the trends is not waited
    for again.
    """
    if isinstance(run.trends, HistoryUnavailable):
        raise run.trends
    open_history(run.layout).record_run(run.entry)


# What becomes of every finished run, in this order. A new one needs a line here.
EXPORTERS: Sequence[Exporter] = (
    Exporter("Markdown report", write_markdown),
    Exporter("HTML report", write_html),
    Exporter("history", record_history),
    Exporter("textfile for Prometheus", write_textfile),
    Exporter("MLflow", start_mlflow_export),  # reads the history
    Exporter("notice", post_end),
)


def publish_run(run: FinishedRun, exporters: Sequence[Exporter] = EXPORTERS) -> list[str]:
    """Write everything that outlives the run; returns what failed without mattering to the run.

    Only a failure to write the result itself is raised, as ``OSError``.
    """
    warnings = [warning for exporter in exporters for warning in _attempt_export(exporter, run)]
    write_result(run.folder, run.result)
    return warnings


def _attempt_export(exporter: Exporter, run: FinishedRun) -> Iterator[str]:
    try:
        exporter.export(run)
    except (OSError, OrchestrateError) as error:
        yield f"{exporter.name} of run {run.result.run_id} not written: {error}"
