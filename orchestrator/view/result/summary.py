"""How a run ended, for people, on standard output."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.verdict.failure_cause import clear_later
from orchestrator.core.verdict.node_status import NOT_STARTED, VERIFIED_CLEAN
from orchestrator.core.verdict.result import MetricResult, Result, Status, Verdict
from orchestrator.view.terminal.terminal import BOLD, GREEN, RED, YELLOW, paint
from orchestrator.view.terminal.text import brief, number, plural, seconds

_STATUS = {
    Status.SUCCEEDED: GREEN,
    Status.DEGRADED: YELLOW,
    Status.FAILED: RED,
    Status.STOPPED: YELLOW,
}
_VERDICT = {Verdict.PASS: GREEN, Verdict.FAIL: RED, Verdict.INVALID: RED, Verdict.NOT_RUN: RED}


def summary(result: Result, *, color: bool = False) -> list[str]:
    """Status first, with the reason if degraded; then figures with their gates, then paths."""
    return [
        _head(result, color),
        *_degradation(result),
        *_lost(result),
        *_metrics(result, color),
        *_samples(result),
        *(f"  warning: {brief(warning, 300)}" for warning in result.warnings),
        *([f"  report  {result.report}"] if result.report else []),
    ]


def stopped_text(result: Result) -> list[str]:
    """For a run that was stopped: whether that was verified, and how to go on."""
    if result.status is not Status.STOPPED or not result.nodes:
        return []
    clean = sum(VERIFIED_CLEAN in node.reason for node in result.nodes)
    told = [f"{plural(clean, 'node')} {VERIFIED_CLEAN}"] if clean else []
    if untouched := sum(node.reason == NOT_STARTED for node in result.nodes):
        told += [f"{plural(untouched, 'node')} clean: {NOT_STARTED} there"]
    again = f"orchestrate resume {brief(result.run_id)}"
    return ["; ".join([*told, f"to go on, from checkpoints where there are any: {again}"])]


def _head(result: Result, color: bool) -> str:
    where = f"{plural(result.world_size, 'rank')} on {plural(len(result.used), 'node')}"
    if result.nodes and not result.used:
        where = _not_started(result)
    word = paint(result.status.value, _STATUS[result.status] + BOLD, color=color)
    took = seconds(sum(result.timings.values()))
    names = brief(f"{result.workload} on {result.cluster}")
    return f"{word}  {names}: {where}, {took}, run {brief(result.run_id)}"


def _not_started(result: Result) -> str:
    out = sum(node.state == "excluded" for node in result.nodes)
    refused = f", {out} of {plural(len(result.nodes), 'node')} refused" if out else ""
    return f"{NOT_STARTED}{refused}"


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
        after = f" after {seconds(rung.seconds)}" if rung.seconds else ""
        if rung.outcome == "failed":
            yield f"  {brief(rung.rung, 40)} failed{after}: {brief(rung.reason, 300)}"
        elif rung.outcome == "used" and fell:
            yield f"  went on by {brief(rung.rung, 40)}: {brief(rung.reason, 300)}"
    # A run that failed of something else, such as a gate, also went on without them.
    culprit = result.failure.node if result.failure is not None else None
    for node in result.nodes:
        if node.state in {"lost", "failed"} and (degraded or culprit is None):
            yield f"  without {brief(node.name)}: {brief(node.reason, 300)}"


def _lost(result: Result) -> Iterator[str]:
    """How to finish what could not be verified, unless the failure says so."""
    lost = [node.name for node in result.nodes if node.state == "lost"]
    told = result.failure is not None and "orchestrate stop" in result.failure.remedy
    if lost and not told:
        yield f"  {brief(clear_later(result.run_id, lost), 300)}"


def _metrics(result: Result, color: bool) -> Iterator[str]:
    width = max((len(brief(name, 48)) for name in result.metrics), default=0)
    for name, metric in result.metrics.items():
        verdict = paint(metric.verdict.value, _VERDICT.get(metric.verdict, ""), color=color)
        told = "" if metric.verdict is Verdict.UNGATED else f"  {verdict}{gate_text(metric)}"
        yield f"  {brief(name, 48):<{width}}  {value_text(metric)}{told}"


def value_text(metric: MetricResult) -> str:
    """The figure with its unit; a missing one says so."""
    if metric.value is None:
        return "not reported" if metric.verdict is Verdict.NOT_RUN else "not a number"
    return f"{number(metric.value)} {brief(metric.unit, 40)}".rstrip()


def gate_text(metric: MetricResult) -> str:
    """`` (0.1..0.5)``, `` (at most 0.5)``, or nothing."""
    low, high = metric.min, metric.max
    if low is not None and high is not None:
        return f" ({number(low)}..{number(high)})"
    if low is not None:
        return f" (at least {number(low)})"
    return f" (at most {number(high)})" if high is not None else ""


def _samples(result: Result) -> Iterator[str]:
    if (samples := result.samples) is not None:
        yield (
            f"  samples  {samples.done} of {samples.total} done, {samples.failed} failed, "
            f"{samples.duplicates} duplicates dropped"
        )
