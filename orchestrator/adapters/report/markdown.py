"""The report as Markdown: for repositories, issues and mails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.adapters.report.document import Report, gate_text, metric_figure, verdict_text
from orchestrator.adapters.report.markdown_sections import section_parts
from orchestrator.adapters.report.markdown_text import bullet_list, escape_markdown, markdown_table


def render_markdown(report: Report) -> str:
    """One document; every foreign text is escaped, also against embedded HTML."""
    result = report.result
    parts = [
        f"# {escape_markdown(result.workload)} on {escape_markdown(result.cluster)}: "
        + result.status.value,
        _facts_line(report),
        *([f"*{escape_markdown(result.notice)}*"] if result.notice else []),
        *_failure_lines(report),
        *section_parts(report.sections),
        *markdown_table("Metrics", ("metric", "value", "gate", "verdict"), _metric_rows(report)),
        *markdown_table("Beside earlier runs", ("metric", "trend"), _trend_rows(report)),
        *markdown_table("Predicted before the run", ("metric", "predicted"), report.predicted),
        *markdown_table("Energy and cost", ("what", "how much"), report.energy_and_cost),
        *markdown_table("Nodes", ("node", "state", "reason"), _node_rows(report)),
        *markdown_table("Ladder", ("rung", "outcome", "reason", "seconds"), _ladder_rows(report)),
        *markdown_table("Samples", ("total", "done", "failed", "duplicates"), _sample_rows(report)),
        *markdown_table("Time", ("phase", "seconds"), _timing_rows(report)),
        *bullet_list("Warnings", map(escape_markdown, result.warnings)),
        *bullet_list(
            "Artifacts", (f"{escape_markdown(f.path)} ({f.size})" for f in report.artifacts)
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _facts_line(report: Report) -> str:
    result = report.result
    return (
        f"Run {escape_markdown(result.run_id)}: {result.world_size} ranks "
        f"by {escape_markdown(result.launcher)}, {report.took}, exit code {int(result.exit_code)}."
    )


def _failure_lines(report: Report) -> Iterator[str]:
    failure = report.result.failure
    if failure is None:
        return
    yield f"**{escape_markdown(failure.cause)}** ({escape_markdown(failure.id)})"
    if failure.last_line:
        yield f"> {escape_markdown(failure.last_line)}"
    if failure.others:
        which = "ranks" if failure.rank is None else "other ranks"
        yield f"{len(failure.others)} {which} were stopped by orchestrate."
    if (found := failure.diagnosis) is not None:
        cause = escape_markdown(found.cause)
        yield f"Diagnosis ({escape_markdown(found.id)}, {found.confidence.value}): {cause}"
        places = [
            f"- {escape_markdown(line.place)}: {escape_markdown(line.text)}"
            for line in found.evidence
        ]
        yield "\n".join([*places, *(f"- {escape_markdown(what)}" for what in found.consequences)])
        yield f"Remedy: {escape_markdown(found.remedy)}"
    if failure.remedy:
        yield f"Next: {escape_markdown(failure.remedy)}"


def _metric_rows(report: Report) -> Iterator[Sequence[str]]:
    for name, metric in report.result.metrics.items():
        yield name, metric_figure(metric), gate_text(metric), verdict_text(metric)


def _trend_rows(report: Report) -> Iterator[Sequence[str]]:
    for trend in report.trends:
        yield trend.name, trend.spark


def _node_rows(report: Report) -> Iterator[Sequence[str]]:
    for node in report.result.nodes:
        yield node.name, node.state, node.reason


def _ladder_rows(report: Report) -> Iterator[Sequence[str]]:
    for rung in report.result.ladder:
        took = "" if rung.seconds is None else f"{rung.seconds:.1f}"
        yield rung.rung, rung.outcome, rung.reason, took


def _sample_rows(report: Report) -> Iterator[Sequence[str]]:
    if (samples := report.result.samples) is not None:
        counts = (samples.total, samples.done, samples.failed, samples.duplicates)
        yield tuple(map(str, counts))


def _timing_rows(report: Report) -> Iterator[Sequence[str]]:
    for phase, seconds in report.result.timings.items():
        yield phase, f"{seconds:.2f}"
