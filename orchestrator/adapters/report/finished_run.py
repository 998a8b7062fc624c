"""A run that is over, as everything that is made of it afterwards gets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from orchestrator.adapters.history.database import HistoryUnavailable
from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.history.run_entry import describe_run
from orchestrator.adapters.history.stored_run import HistoryEntry
from orchestrator.adapters.report.document import Report, load_report
from orchestrator.adapters.report.drawing.trend_chart import TrendChart
from orchestrator.adapters.report.run_trends import run_trends
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.liveness import read_identity
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.model.request import RunRequest
from orchestrator.core.verdict.result import Result


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """``now``: seconds since the epoch. The report is gathered when it is first needed."""

    layout: Layout
    folder: RunFolder
    request: RunRequest
    result: Result
    now: float

    @cached_property
    def report(self) -> Report:
        """What the renderings show. A history that cannot be read costs the trends: what enters the
        run there says so.
        """
        trends = self.trends
        shown = () if isinstance(trends, HistoryUnavailable) else trends
        return load_report(self.folder, self.result, shown)

    @cached_property
    def trends(self) -> tuple[TrendChart, ...] | HistoryUnavailable:
        """This run beside earlier ones; or why the history's database cannot be used, which no run
        waits for twice.
        """
        try:
            return run_trends(open_history(self.layout), self.entry.record)
        except HistoryUnavailable as error:
            return error
        except (OSError, OrchestrateError):
            return ()

    @cached_property
    def entry(self) -> HistoryEntry:
        """What the history keeps of the run."""
        identity = read_identity(self.folder.coordinator)
        started = identity.at if identity else self.now
        return describe_run(
            self.folder, self.request, self.result, started=started, finished=self.now
        )


@dataclass(frozen=True, slots=True)
class Exporter:
    """Something that is made of a finished run. ``name`` as people call it: ``HTML report``.

    ``export`` raises ``OSError`` or ``OrchestrateError``; what it raises is a
    warning, and no other exporter is kept from its work. One that runs twice for a run, because a
    coordinator died in between, must leave what one run of it leaves.
    """

    name: str
    export: Callable[[FinishedRun], None]
