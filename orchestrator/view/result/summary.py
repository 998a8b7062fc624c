"""How a run ended, for people, on standard output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.adapters.report.energy_text import cost_rows, energy_rows
from orchestrator.adapters.report.prediction_text import prediction_rows
from orchestrator.core.base.figures import format_bounds, format_figure
from orchestrator.core.verdict.failure_cause import clear_later
from orchestrator.core.verdict.node_status import NOT_STARTED, VERIFIED_CLEAN
from orchestrator.core.verdict.result import (
    MetricResult,
    Result,
    Status,
    Verdict,
    names_a_node,
)
from orchestrator.view.terminal.terminal import BOLD, GREEN, RED, YELLOW, paint_text
from orchestrator.view.terminal.text import brief_text, count_noun, format_seconds

_STATUS = {
    Status.SUCCEEDED: GREEN,
    Status.DEGRADED: YELLOW,
    Status.FAILED: RED,
    Status.STOPPED: YELLOW,
}
_VERDICT = {Verdict.PASS: GREEN, Verdict.FAIL: RED, Verdict.INVALID: RED, Verdict.NOT_RUN: RED}


def summary_lines(result: Result, *, said: Sequence[str] = (), color: bool = False) -> list[str]:
    """Status first, with the reason if degraded; what the workload ``said`` of it, figures with
    their gates, then paths.
    """
    return [
        _head(result, color),
        *([f"  {brief_text(result.notice, 300)}"] if result.notice else []),
        *_left_out(result),
        *_degradation(result),
        *_lost(result),
        *said,
        *_metrics(result, color),
        *_samples(result),
        *_predicted(result),
        *_energy_and_cost(result),
        *(f"  warning: {brief_text(warning, 300)}" for warning in result.warnings),
        *([f"  report  {result.report}"] if result.report else []),
    ]


def stopped_text(result: Result) -> list[str]:
    """For a run that was stopped: whether that was verified, and how to go on."""
    if result.status is not Status.STOPPED or not result.nodes:
        return []
    clean = sum(VERIFIED_CLEAN in node.reason for node in result.nodes)
    told = [f"{count_noun(clean, 'node')} {VERIFIED_CLEAN}"] if clean else []
    if untouched := sum(node.reason == NOT_STARTED for node in result.nodes):
        told += [f"{count_noun(untouched, 'node')} clean: {NOT_STARTED} there"]
    return ["; ".join([*told, _next_attempt(result)])]


def _next_attempt(result: Result) -> str:
    run_id = brief_text(result.run_id)
    if result.begins_anew:
        return f"a test cannot be resumed; begin it anew: orchestrate resume --retry {run_id}"
    return f"continue from the last checkpoints, if any: orchestrate resume {run_id}"


def _head(result: Result, color: bool) -> str:
    where = _where(result)
    word = paint_text(result.status.value, _STATUS[result.status] + BOLD, color=color)
    took = format_seconds(sum(result.timings.values()))
    names = brief_text(f"{result.workload} on {result.cluster}")
    return f"{word}  {names}: {where}, {took}, run {brief_text(result.run_id)}"


def _where(result: Result) -> str:
    """What ran; of a run that got through without some nodes: what came to its end."""
    if result.nodes and not result.used:
        return _not_started(result)
    ranks, nodes = count_noun(result.world_size, "rank"), count_noun(len(result.used), "node")
    if result.status is Status.DEGRADED and len(result.stayed) < len(result.used):
        left = sum(node.ranks for node in result.stayed)
        return f"{left} of {ranks} on {len(result.stayed)} of {nodes}"
    return f"{ranks} on {nodes}"


def _not_started(result: Result) -> str:
    out = sum(node.state == "excluded" for node in result.nodes)
    refused = f", {out} of {count_noun(len(result.nodes), 'node')} refused" if out else ""
    return f"{NOT_STARTED}{refused}"


def _left_out(result: Result) -> Iterator[str]:
    """Nodes that were asked for and not used, of a run that ran without them."""
    for node in result.nodes if result.used else ():
        if node.state == "excluded":
            yield f"  {brief_text(node.name)}: left out: {brief_text(node.reason, 300)}"


def _degradation(result: Result) -> Iterator[str]:
    """How far down the ladder it went on, and without whom. Also of a run that failed later: its
    figures are not what the cluster can do.
    """
    fell = any(rung.outcome == "failed" for rung in result.ladder)
    went_on = fell and any(rung.outcome == "used" for rung in result.ladder)
    degraded = result.status is Status.DEGRADED
    if not degraded and not went_on:
        return
    for rung in result.ladder:
        after = f" after {format_seconds(rung.seconds)}" if rung.seconds else ""
        if rung.outcome == "failed":
            yield f"  {brief_text(rung.rung, 40)} failed{after}: {brief_text(rung.reason, 300)}"
        elif rung.outcome == "used" and fell:
            yield f"  used instead: {brief_text(rung.rung, 40)} ({brief_text(rung.reason, 300)})"
    # A run that failed of something else, such as a gate, also went on without them.
    culprit = result.failure.node if result.failure is not None else None
    for node in result.nodes:
        if node.state in {"lost", "failed"} and (degraded or culprit is None):
            yield f"  without {brief_text(node.name)}: {brief_text(node.reason, 300)}"


def _lost(result: Result) -> Iterator[str]:
    """How to finish what could not be verified, unless the failure says so."""
    lost = [node.name for node in result.nodes if node.state == "lost"]
    told = result.failure is not None and "orchestrate stop" in result.failure.remedy
    if lost and not told:
        yield f"  {brief_text(clear_later(result.run_id, lost), 300)}"


def _metrics(result: Result, color: bool) -> Iterator[str]:
    shown = {name: metric for name, metric in result.metrics.items() if _is_shown(name, result)}
    width = max((len(brief_text(name, 48)) for name in shown), default=0)
    for name, metric in shown.items():
        verdict = paint_text(metric.verdict.value, _VERDICT.get(metric.verdict, ""), color=color)
        told = "" if metric.verdict is Verdict.UNGATED else f"  {verdict}{_bounds_note(metric)}"
        yield f"  {brief_text(name, 48):<{width}}  {value_text(metric)}{told}"


def _is_shown(name: str, result: Result) -> bool:
    """Bad news always; else not what one of several nodes did, and as the workload says."""
    metric = result.metrics[name]
    if metric.verdict not in {Verdict.UNGATED, Verdict.PASS}:
        return True
    whole, _, suffix = name.partition(".")
    nodes = (node.name for node in result.nodes)
    return metric.terminal and not (whole in result.metrics and names_a_node(suffix, nodes))


def value_text(metric: MetricResult) -> str:
    """The figure with its unit; a missing one says so."""
    if metric.value is None:
        return "not reported" if metric.verdict is Verdict.NOT_RUN else "not a number"
    return format_figure(metric.value, brief_text(metric.unit, 40))


def _bounds_note(metric: MetricResult) -> str:
    """`` (at least 0.1 and at most 0.5)``, or nothing without a gate."""
    told = format_bounds(metric.min, metric.max, metric.unit)
    return f" ({told})" if told else ""


def _predicted(result: Result) -> Iterator[str]:
    """Only figures that were measured, too."""
    measured = (each for each in result.predictions if each.measured is not None)
    for name, told in prediction_rows(measured):
        yield f"  predicted {brief_text(name, 80)}: {brief_text(told, 300)}"


def _energy_and_cost(result: Result) -> Iterator[str]:
    for name, told in (*energy_rows(result.energy), *cost_rows(result.cost)):
        yield f"  {brief_text(name, 80)}: {brief_text(told, 300)}"


def _samples(result: Result) -> Iterator[str]:
    if (samples := result.samples) is not None:
        yield (
            f"  samples  {samples.done} of {samples.total} done, {samples.failed} failed, "
            f"{samples.duplicates} duplicates dropped"
        )
