"""How a suite ended, for people, on standard output."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.adapters.report.document import gate_text, metric_figure, verdict_text
from orchestrator.adapters.suite.suite_report import ArchivePlace, SuiteReport
from orchestrator.core.suite.step_records import GOOD, StepOutcome
from orchestrator.core.verdict.result import Status, Verdict
from orchestrator.view.terminal.terminal import BOLD, GREEN, RED, YELLOW, paint_text
from orchestrator.view.terminal.text import brief_text, count_noun, format_seconds, format_size

_COLORS = {Status.SUCCEEDED: GREEN, Status.FAILED: RED}


def suite_lines(report: SuiteReport, archive: ArchivePlace | None, *, color: bool) -> Iterator[str]:
    """Status first, then each step with its reason, gates that do not hold, and paths."""
    status = paint_text(report.status.value, _COLORS.get(report.status, YELLOW) + BOLD, color=color)
    steps = count_noun(len(report.outcomes), "step")
    yield f"{status}  suite {report.suite.name} on {report.cluster}: {steps}, {report.counts}"
    width = max(len(outcome.step) for outcome in report.outcomes)
    for outcome in report.outcomes:
        yield _step_line(outcome, width, color=color)
    for outcome, name, metric in report.figures():
        if metric.verdict not in {Verdict.PASS, Verdict.UNGATED}:
            figure, gate = metric_figure(metric), gate_text(metric)
            bounds = f" ({gate})" if gate else ""
            yield f"  {outcome.step}: {name} {figure}{bounds}: {verdict_text(metric)}"
    for warning in report.warnings():
        yield f"  warning: {brief_text(warning, 300)}"
    if archive is not None:
        yield f"  archive {archive.path} ({format_size(archive.bytes)})"


def _step_line(outcome: StepOutcome, width: int, *, color: bool) -> str:
    style = GREEN if outcome.state in GOOD else RED
    state = paint_text(f"{outcome.state.value:<8}", style, color=color)
    took = "" if outcome.seconds is None else format_seconds(outcome.seconds)
    kind = "optional" if outcome.optional else ""
    said = f"{outcome.run_id}{'; ' if outcome.run_id and outcome.reason else ''}{outcome.reason}"
    cells = (f"{outcome.step:<{width}}", state, f"{took:>8}", f"{kind:<8}", brief_text(said, 300))
    return f"  {'  '.join(cells)}".rstrip()
