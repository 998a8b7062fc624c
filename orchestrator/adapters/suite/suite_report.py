"""A suite that is over: as the last JSON line, as Markdown, as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.adapters.report.document import gate_text, metric_figure, one_line, verdict_text
from orchestrator.adapters.report.html_report import render_template
from orchestrator.adapters.report.markdown_text import bullet_list, escape_markdown, markdown_table
from orchestrator.core.base.errors import ExitCode
from orchestrator.core.base.figures import format_duration, format_moment
from orchestrator.core.suite.step_records import (
    StepOutcome,
    StepState,
    suite_exit_code,
    suite_status,
)
from orchestrator.core.suite.suite_model import Suite
from orchestrator.core.verdict.result import MetricResult, Result, Status, Verdict

SCHEMA_VERSION = 1
STEP_HEADINGS = ("step", "workload", "", "state", "time", "run", "reason")
FIGURE_HEADINGS = ("step", "figure", "value", "gate", "verdict", "run")


@dataclass(frozen=True, slots=True)
class ArchivePlace:
    """Where the archive is: a path here, or ``NODE:PATH``; its length and SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteReport:
    """``results``: of the runs of steps that have one, by step; ``ended`` in seconds since the
    epoch.
    """

    suite: Suite
    run_id: str
    cluster: str
    outcomes: tuple[StepOutcome, ...]
    results: Mapping[str, Result]
    ended: float

    @property
    def status(self) -> Status:
        return suite_status(self.outcomes)

    @property
    def exit_code(self) -> ExitCode:
        return suite_exit_code(self.status)

    @property
    def counts(self) -> str:
        """``5 passed, 1 skipped``."""
        states = [outcome.state for outcome in self.outcomes]
        return ", ".join(f"{states.count(s)} {s.value}" for s in StepState if s in states)

    def warnings(self) -> Iterator[str]:
        """What to know of steps that got through, such as captures that are missing."""
        for outcome in self.outcomes:
            result = self.results.get(outcome.step)
            if result is None and outcome.state in {StepState.PASSED, StepState.DEGRADED}:
                yield f"{outcome.step}: run {outcome.run_id} was removed, and is in no archive"
            for warning in result.warnings if result else ():
                yield f"{outcome.step}: {one_line(warning)}"

    def figures(self) -> Iterator[tuple[StepOutcome, str, MetricResult]]:
        """(step, name, figure) of all that a reader of a summary wants to see."""
        for outcome in self.outcomes:
            result = self.results.get(outcome.step)
            for name, metric in result.metrics.items() if result else ():
                if metric.terminal or metric.verdict is not Verdict.UNGATED:
                    yield outcome, name, metric


def report_object(report: SuiteReport, archive: ArchivePlace | None) -> dict[str, Any]:
    """The result object of a suite (docs/suites.md)."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": report.run_id,
        "suite": report.suite.name,
        "cluster": report.cluster,
        "status": report.status.value,
        "exit_code": int(report.exit_code),
        "steps": [_step_object(report, outcome) for outcome in report.outcomes],
        "warnings": list(report.warnings()),
        "failure": _failure_object(report),
        "archive": asdict(archive) if archive is not None else None,
    }


def step_rows(report: SuiteReport) -> Iterator[Sequence[str]]:
    """One row a step, for ``STEP_HEADINGS``."""
    for outcome in report.outcomes:
        yield (
            outcome.step,
            report.suite.step(outcome.step).workload,
            "optional" if outcome.optional else "core",
            outcome.state.value,
            "" if outcome.seconds is None else format_duration(outcome.seconds),
            outcome.run_id,
            outcome.reason,
        )


def figure_rows(report: SuiteReport) -> Iterator[Sequence[str]]:
    """One row a figure, for ``FIGURE_HEADINGS``; each with the run that it is of."""
    for outcome, name, metric in report.figures():
        yield (
            outcome.step,
            name,
            metric_figure(metric),
            gate_text(metric),
            verdict_text(metric),
            outcome.run_id,
        )


def suite_markdown(report: SuiteReport) -> str:
    """The summary for repositories and mails; every foreign text is escaped."""
    suite = escape_markdown(report.suite.name)
    parts = [
        f"# Suite {suite} on {escape_markdown(report.cluster)}: {report.status.value}",
        f"Run {escape_markdown(report.run_id)}, {format_moment(report.ended)}: {report.counts}.",
        *markdown_table("Steps", STEP_HEADINGS, step_rows(report)),
        *markdown_table("Figures", FIGURE_HEADINGS, figure_rows(report)),
        *bullet_list("Warnings", map(escape_markdown, report.warnings())),
    ]
    return "\n\n".join(parts) + "\n"


def suite_html(report: SuiteReport) -> str:
    """The summary as one file that needs no network; runs are linked below ``runs/``."""
    return render_template(
        "suite.html.jinja",
        report=report,
        moment=format_moment(report.ended),
        step_headings=STEP_HEADINGS,
        steps=list(step_rows(report)),
        figure_headings=FIGURE_HEADINGS,
        figures=list(figure_rows(report)),
    )


def _step_object(report: SuiteReport, outcome: StepOutcome) -> dict[str, Any]:
    result = report.results.get(outcome.step)
    metrics = result.metrics.items() if result else ()
    return {
        "name": outcome.step,
        "workload": report.suite.step(outcome.step).workload,
        "optional": outcome.optional,
        "why": report.suite.step(outcome.step).why,
        "state": outcome.state.value,
        "reason": one_line(outcome.reason),
        "run_id": outcome.run_id,
        "exit_code": outcome.exit_code,
        "seconds": outcome.seconds,
        "metrics": {
            name: {"value": metric.value, "unit": metric.unit, "verdict": metric.verdict.value}
            for name, metric in metrics
        },
    }


def _failure_object(report: SuiteReport) -> dict[str, Any] | None:
    """The first core step that failed."""
    for outcome in report.outcomes:
        if outcome.state is StepState.FAILED and not outcome.optional:
            return {
                "id": "suite.step",
                "node": None,
                "rank": None,
                "cause": f"step {outcome.step}: {one_line(outcome.reason)}",
                "remedy": f"orchestrate show {outcome.run_id}" if outcome.run_id else "",
            }
    return None
