"""Documents that are made of archived runs alone: each figure with its run, no blank to fill in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from orchestrator.adapters.report.document import gate_text, metric_figure
from orchestrator.adapters.report.energy_text import cost_rows, energy_rows
from orchestrator.adapters.report.markdown_text import escape_markdown, markdown_table
from orchestrator.adapters.suite.archived_steps import ArchivedStep, newest_steps
from orchestrator.core.base.figures import format_figure, format_moment, format_number
from orchestrator.core.captures.outcome import CaptureState
from orchestrator.core.model.prices import ElectricityPrice
from orchestrator.core.suite.step_records import StepState
from orchestrator.core.verdict.cost import JOULES_PER_KWH, MILLION
from orchestrator.core.verdict.result import MetricResult, Verdict

RATE, WATTS, PER_JOULE = "output_tokens_per_s", "watts", "tokens_per_joule"
NOT_MEASURED = "not measured"
NO_EVIDENCE = frozenset(StepState) - {StepState.PASSED, StepState.DEGRADED}
MOST_REASONS = 3
NO_FIGURE = frozenset({Verdict.FAIL, Verdict.INVALID, Verdict.NOT_RUN})

Steps = Sequence[ArchivedStep]


def efficiency_document(steps: Steps, electricity: Sequence[ElectricityPrice]) -> str:
    """``power_efficiency_baselines.md``: throughput, watts, tokens per joule, what a million of
    tokens costs at each price of electricity, and the break-even with APIs.
    """
    prices = [f"1M tokens, {price.name}" for price in electricity]
    rows = [row for step in steps for row in _batch_rows(step, electricity)]
    whole = [row for step in steps for row in _run_rows(step)]
    parts = [
        *markdown_table(
            "By precision and batch",
            ("load", "output", "mean power", "per joule", *map(escape_markdown, prices), "run"),
            rows,
        ),
        *markdown_table("Energy and cost of whole runs", ("step", "what", "value", "run"), whole),
    ]
    return _document("Power efficiency baselines", steps, parts, "no archived run measured power")


def gaps_document(steps: Steps) -> str:
    """``known_gaps.md``: what each step is to show, and whether its latest run shows it."""
    rows = [row for step in newest_steps(steps) for row in _gap_rows(step)]
    headings = ("suite", "step", "what it shows", "status", "because", "run")
    body = list(markdown_table("Status", headings, sorted(rows, key=lambda row: row[3] != "open")))
    return _document("Known gaps", steps, body, "no step is archived")


def results_document(steps: Steps) -> str:
    """``results.md``: every figure of every archived run with its gate, by step."""
    parts: list[str] = []
    for step in steps:
        title = f"{escape_markdown(step.step)} ({escape_markdown(step.suite)})"
        parts += markdown_table(title, ("figure", "value", "gate", "run"), _figure_rows(step))
    return _document("Results", steps, parts, "no archived run reported figures")


DOCUMENTS: Mapping[str, Callable[[Steps, Sequence[ElectricityPrice]], str]] = {
    "power_efficiency_baselines.md": efficiency_document,
    "known_gaps.md": lambda steps, _: gaps_document(steps),
    "results.md": lambda steps, _: results_document(steps),
}


def _document(title: str, steps: Steps, parts: Sequence[str], none: str) -> str:
    archives = dict.fromkeys((step.archive, step.made, step.cluster) for step in steps)
    sources = "\n".join(
        f"- {escape_markdown(name)}: {format_moment(made)}, on {escape_markdown(cluster)}"
        for name, made, cluster in archives
    )
    body = parts or [f"Nothing is here: {none}."]
    return "\n\n".join([f"# {title}", f"From these archives:\n\n{sources}", *body]) + "\n"


def _batch_rows(step: ArchivedStep, prices: Sequence[ElectricityPrice]) -> Iterator[Sequence[str]]:
    """One row for each precision and batch that a run measured."""
    metrics = step.result.metrics if step.result else {}
    for name, rate in metrics.items():
        kind, dot, load = name.partition(".")
        watts, per_joule = (metrics.get(f"{of}.{load}") for of in (WATTS, PER_JOULE))
        if kind != RATE or not dot or (watts is None and per_joule is None):
            continue
        costs = [_electricity(per_joule, price) for price in prices]
        yield load, metric_figure(rate), _figure(watts), _figure(per_joule), *costs, step.run_id


def _electricity(per_joule: MetricResult | None, price: ElectricityPrice) -> str:
    """What the boards' energy for a million tokens costs, with the site's PUE."""
    if per_joule is None or not per_joule.value:
        return NOT_MEASURED
    cost = MILLION / per_joule.value / JOULES_PER_KWH * price.pue * price.per_kwh
    return format_figure(cost, price.currency)


def _figure(metric: MetricResult | None) -> str:
    return NOT_MEASURED if metric is None else metric_figure(metric)


def _run_rows(step: ArchivedStep) -> Iterator[Sequence[str]]:
    if step.result is None:
        return
    for what, value in (*energy_rows(step.result.energy), *cost_rows(step.result.cost)):
        yield step.step, what, value, step.run_id


def _gap_rows(step: ArchivedStep) -> Iterator[Sequence[str]]:
    """One row for the step; one more for each figure that is missing, invalid or past its gate, for
    each capture that is not whole, and for energy that is not valid.
    """
    shows = step.why or f"that {step.workload} runs"
    run = step.run_id or f"none, see {step.archive}"
    is_open = step.state in NO_EVIDENCE
    because = f"{step.state}: {step.reason}" if step.reason else step.state
    yield step.suite, step.step, shows, "open" if is_open else "closed", because, run
    for name, metric in step.result.metrics.items() if step.result else ():
        if metric.verdict in NO_FIGURE:
            bounds = gate_text(metric)
            said = f"{metric_figure(metric)}, {bounds}" if bounds else metric_figure(metric)
            yield step.suite, step.step, name, "open", f"{metric.verdict.value}: {said}", run
    for capture in step.result.captures if step.result else ():
        if capture.state is not CaptureState.CAPTURED:
            said = "; ".join([capture.state.value, *capture.reasons[:MOST_REASONS]])
            yield step.suite, step.step, f"capture {capture.kind}", "open", said, run
    energy = step.result.energy if step.result else None
    if energy is not None and energy.gpus and not energy.valid:
        yield step.suite, step.step, "energy", "open", "; ".join(energy.reasons[:MOST_REASONS]), run


def _figure_rows(step: ArchivedStep) -> Iterator[Sequence[str]]:
    for name, metric in step.result.metrics.items() if step.result else ():
        gate = gate_text(metric)
        verdict = f"{gate}: {metric.verdict.value}" if gate else "none"
        yield name, metric_figure(metric), verdict, step.run_id
    for capture in step.result.captures if step.result else ():
        for name, value in capture.figures.items():
            yield f"capture {capture.kind}: {name}", format_number(value), "none", step.run_id
