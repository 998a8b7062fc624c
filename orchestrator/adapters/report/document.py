"""What a report says, before it becomes Markdown or HTML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.history.run_entry import read_plan
from orchestrator.adapters.report.drawing.charts import Chart, draw_charts
from orchestrator.adapters.report.drawing.trend_chart import TrendChart
from orchestrator.adapters.report.energy_text import Row, cost_rows, energy_rows
from orchestrator.adapters.report.prediction_text import prediction_rows
from orchestrator.adapters.report.section_files import NodeSections, read_sections
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.metric_series import read_series
from orchestrator.core.base import figures
from orchestrator.core.model.plan import Plan
from orchestrator.core.verdict.result import MetricResult, Result, Verdict

MAX_FILES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file of the run; ``path`` is relative to the report, with ``/``."""

    path: str
    bytes: int

    @property
    def size(self) -> str:
        """For people."""
        return figures.format_figure(self.bytes, "bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that the renderings show. ``plan`` None = there was none, or it is unreadable."""

    result: Result
    plan: Plan | None
    charts: tuple[Chart, ...]
    artifacts: tuple[StoredFile, ...]
    logs: tuple[StoredFile, ...]
    sections: tuple[NodeSections, ...] = ()
    trends: tuple[TrendChart, ...] = ()

    @property
    def took(self) -> str:
        """Wall time of the run, for people."""
        return figures.format_duration(sum(self.result.timings.values()))

    @property
    def energy_and_cost(self) -> tuple[Row, ...]:
        """What is known of both."""
        return (*energy_rows(self.result.energy), *cost_rows(self.result.cost))

    @property
    def predicted(self) -> tuple[Row, ...]:
        """What was predicted before the run, beside what was measured."""
        return tuple(prediction_rows(self.result.predictions))


def load_report(folder: RunFolder, result: Result, trends: tuple[TrendChart, ...] = ()) -> Report:
    """Gather what the run's folder holds; parts that are missing or damaged stay empty."""
    return Report(
        result=result,
        plan=read_plan(folder),
        charts=draw_charts(read_series(folder.metrics)),
        artifacts=tuple(_list_files(folder, folder.artifacts)),
        logs=tuple(_list_files(folder, folder.logs)),
        sections=read_sections(folder),
        trends=trends,
    )


def one_line(text: str) -> str:
    """Foreign text without line ends, controls and direction overrides."""
    return "".join(c if c.isprintable() else " " for c in text)


def metric_figure(metric: MetricResult) -> str:
    """The value with its unit, or that there is none."""
    if metric.value is None:
        return "not reported" if metric.verdict is Verdict.NOT_RUN else "not a number"
    return figures.format_figure(metric.value, one_line(metric.unit))


def gate_text(metric: MetricResult) -> str:
    """The bounds in words; empty without a gate."""
    return figures.format_bounds(metric.min, metric.max, one_line(metric.unit))


def verdict_text(metric: MetricResult) -> str:
    """What the gate says; empty where there is none."""
    return "" if metric.verdict is Verdict.UNGATED else metric.verdict.value


def _list_files(folder: RunFolder, below: Path) -> Iterator[StoredFile]:
    """Regular files in name order, at most ``MAX_FILES``; links are not followed."""
    found = sorted(p for p in below.rglob("*") if p.is_file() and not p.is_symlink())
    for path in found[:MAX_FILES]:
        relative = path.relative_to(folder.path).as_posix()
        yield StoredFile(path=relative, bytes=path.stat().st_size)
