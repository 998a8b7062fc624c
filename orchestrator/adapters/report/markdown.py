"""The report as Markdown: for repositories, issues and mails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.adapters.report.document import Report, figure, gate, verdict
from orchestrator.adapters.report.markdown_sections import section_parts
from orchestrator.adapters.report.markdown_text import bullets, escape, table


def render_markdown(report: Report) -> str:
    """One document; every foreign text is escaped, also against embedded HTML."""
    result = report.result
    parts = [
        f"# {escape(result.workload)} on {escape(result.cluster)}: {result.status.value}",
        _facts(report),
        *_failure(report),
        *section_parts(report.sections),
        *table("Metrics", ("metric", "value", "gate", "verdict"), _metrics(report)),
        *table("Nodes", ("node", "state", "reason"), _nodes(report)),
        *table("Ladder", ("rung", "outcome", "reason", "seconds"), _ladder(report)),
        *table("Samples", ("total", "done", "failed", "duplicates"), _samples(report)),
        *table("Time", ("phase", "seconds"), _timings(report)),
        *bullets("Warnings", map(escape, result.warnings)),
        *bullets("Artifacts", (f"{escape(f.path)} ({f.size})" for f in report.artifacts)),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(report: Report) -> str:
    result = report.result
    return (
        f"Run {escape(result.run_id)}: {result.world_size} ranks by {escape(result.launcher)}, "
        f"{report.took}, exit code {int(result.exit_code)}."
    )


def _failure(report: Report) -> Iterator[str]:
    failure = report.result.failure
    if failure is None:
        return
    yield f"**{escape(failure.cause)}** ({escape(failure.id)})"
    if failure.last_line:
        yield f"> {escape(failure.last_line)}"
    if failure.others:
        which = "ranks" if failure.rank is None else "other ranks"
        yield f"{len(failure.others)} {which} were stopped by orchestrate."
    if (found := failure.diagnosis) is not None:
        yield f"Diagnosis ({escape(found.id)}, {found.confidence.value}): {escape(found.cause)}"
        places = [f"- {escape(line.place)}: {escape(line.text)}" for line in found.evidence]
        yield "\n".join([*places, *(f"- {escape(what)}" for what in found.consequences)])
        yield f"Remedy: {escape(found.remedy)}"
    if failure.remedy:
        yield f"Next: {escape(failure.remedy)}"


def _metrics(report: Report) -> Iterator[Sequence[str]]:
    for name, metric in report.result.metrics.items():
        yield name, figure(metric), gate(metric), verdict(metric)


def _nodes(report: Report) -> Iterator[Sequence[str]]:
    for node in report.result.nodes:
        yield node.name, node.state, node.reason


def _ladder(report: Report) -> Iterator[Sequence[str]]:
    for rung in report.result.ladder:
        took = "" if rung.seconds is None else f"{rung.seconds:.1f}"
        yield rung.rung, rung.outcome, rung.reason, took


def _samples(report: Report) -> Iterator[Sequence[str]]:
    if (samples := report.result.samples) is not None:
        counts = (samples.total, samples.done, samples.failed, samples.duplicates)
        yield tuple(map(str, counts))


def _timings(report: Report) -> Iterator[Sequence[str]]:
    for phase, seconds in report.result.timings.items():
        yield phase, f"{seconds:.2f}"
