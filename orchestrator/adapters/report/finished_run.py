"""A run that is over, as everything that is made of it afterwards gets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from orchestrator.adapters.report.document import Report, load_report
from orchestrator.adapters.store.layout import Layout, RunFolder
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
        """What the renderings show."""
        return load_report(self.folder, self.result)


@dataclass(frozen=True, slots=True)
class Exporter:
    """Something that is made of a finished run. ``name`` as people call it: ``HTML report``.

    ``export`` raises ``OSError`` or ``OrchestrateError``; what it raises is a
    warning, and no other exporter is kept from its work. One that runs twice for a run, because a
    coordinator died in between, must leave what one run of it leaves.
    """

    name: str
    export: Callable[[FinishedRun], None]
