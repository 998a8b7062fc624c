"""Results as text (Markdown that is also readable as it is) and as JSON.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .rounds import Scenario
from .stats import Quantity, Sample, Samples, Verdict, judge, summarize, values


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A scenario with its samples; `profile` is text that explains them, or empty."""

    scenario: Scenario
    samples: Samples
    profile: str = ""
    verdicts: Sequence[Verdict] = field(default_factory=tuple)


def judged(scenario: Scenario, samples: Samples) -> list[Verdict]:
    return [judge(target, samples, scenario.ours) for target in scenario.targets]


def markdown(machine: Mapping[str, str], results: Sequence[Measured]) -> str:
    """The whole report."""
    facts = table(("what", "value"), list(machine.items()))
    return "\n\n".join([facts, *(_section(result) for result in results)]) + "\n"


def as_json(machine: Mapping[str, str], results: Sequence[Measured]) -> dict[str, Any]:
    """Every sample, in seconds, and every verdict."""
    return {
        "schema_version": 1,
        "machine": dict(machine),
        "scenarios": [
            {
                "name": result.scenario.name,
                "samples": {
                    case: {name: [asdict(sample) for sample in taken] for name, taken in by.items()}
                    for case, by in result.samples.items()
                },
                "targets": [_verdict_json(verdict) for verdict in result.verdicts],
            }
            for result in results
        ],
    }


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    target = verdict.target
    return {
        "case": target.case,
        "quantity": target.quantity.value,
        "of": target.of,
        "against": target.against,
        "limit": target.limit,
        "value": verdict.value,
        "rounds": [verdict.low, verdict.high],
        "verdict": verdict.word,
    }


def _section(result: Measured) -> str:
    scenario = result.scenario
    parts = [
        f"## {scenario.title}",
        *filter(None, [scenario.note]),
        _figures(scenario, result.samples),
    ]
    if result.verdicts:
        parts.append(_targets(result.verdicts))
    if result.profile:
        parts.append(f"```text\n{result.profile.rstrip()}\n```")
    return "\n\n".join(parts)


def _figures(scenario: Scenario, samples: Samples) -> str:
    headings = (
        "case",
        "what",
        "wall s",
        "client CPU s",
        "hosts' CPU s",
        "ours / this: wall",
        "CPU",
    )
    rows = []
    for case, contenders in samples.items():
        ours = contenders.get(scenario.ours, ())
        for name, taken in contenders.items():
            ratios = ("", "") if name == scenario.ours else _ratios(ours, taken)
            spreads = (_spread(taken, Quantity.WALL), _spread(taken, Quantity.CPU))
            rows.append((case, name, *spreads, _hosts_cpu(taken), *ratios))
    return table(headings, rows)


def _ratios(ours: Sequence[Sample], theirs: Sequence[Sample]) -> tuple[str, str]:
    if not ours:
        return "", ""
    wall, cpu = (
        f"{summarize(values(ours, q)).median / summarize(values(theirs, q)).median:.2f}"
        for q in (Quantity.WALL, Quantity.CPU)
    )
    return wall, cpu


def _spread(samples: Sequence[Sample], quantity: Quantity) -> str:
    summary = summarize(values(samples, quantity))
    return f"{summary.median:.3f} ({summary.low:.3f}..{summary.high:.3f})"


def _hosts_cpu(samples: Sequence[Sample]) -> str:
    known = [sample.hosts_cpu_s for sample in samples if sample.hosts_cpu_s is not None]
    return f"{summarize(known).median:.3f}" if len(known) == len(samples) else "not known"


def _targets(verdicts: Sequence[Verdict]) -> str:
    rows = []
    for verdict in verdicts:
        target, unit = verdict.target, verdict.target.unit
        against = f" of {target.against}" if target.against else ""
        figure = f"{verdict.value:.2f} ({verdict.low:.2f}..{verdict.high:.2f}) {unit}"
        limit = f"<= {target.limit:g} {unit}{against}"
        of = f", {target.of}" if target.of else ""
        rows.append((target.case, target.quantity.value + of, limit, figure, verdict.word))
    return table(("case", "figure", "target", "measured (rounds)", "verdict"), rows)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [headings, ["-" * width for width in widths], *rows]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)
