"""A comparison of two runs or groups of runs, for people and for machines."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from orchestrator.core.base.figures import format_figure
from orchestrator.core.history.comparing import FigureComparison, RunGroup, RunsComparison
from orchestrator.core.history.figure_gates import GateOutcome
from orchestrator.core.verdict.result import Verdict
from orchestrator.view.terminal.terminal import GREEN, RED, YELLOW, paint_text
from orchestrator.view.terminal.text import brief_text, count_noun

HEADINGS = ("figure", "A", "B", "B/A", "95 % interval", "tolerance", "verdict", "why")
_COLORS = {Verdict.PASS: GREEN, Verdict.WARN: YELLOW}


def comparison_rows(found: RunsComparison) -> list[list[str]]:
    """The table, under ``HEADINGS``; a reason for all of it stands above."""
    return [_cells(item, found.reason) for item in found.figures]


def heading_lines(found: RunsComparison) -> Iterator[str]:
    """What is compared, or why it cannot be."""
    yield f"A  {_group(found.a)}"
    yield f"B  {_group(found.b)}"
    if _is_refused(found):
        yield brief_text(found.reason, 1000)


def closing_lines(found: RunsComparison, *, color: bool) -> Iterator[str]:
    """Gates, parts of the key that differ, and the verdict last."""
    for gate in found.gates:
        word = paint_text(gate.verdict.value, _COLORS.get(gate.verdict, RED), color=color)
        what = f"{brief_text(gate.gate.metric, 48)} {gate.gate.rule}"
        yield f"gate {word}: {what}: {brief_text(gate.detail)} ({brief_text(gate.gate.reason)})"
    for difference in found.differences:
        yield f"differs in {brief_text(str(difference))}"
    if found.differences:
        parts = ",".join(difference.part for difference in found.differences)
        yield f"next: compare runs that are alike, or allow the difference: --across {parts}"
    word = paint_text(found.verdict.value, _COLORS.get(found.verdict, RED), color=color)
    reason = "for the reason above the table" if _is_refused(found) else brief_text(found.reason)
    yield f"{word}: {reason}"


def _is_refused(found: RunsComparison) -> bool:
    """Whether one reason holds for every figure."""
    return bool(found.figures) and all(item.reason == found.reason for item in found.figures)


def comparison_object(found: RunsComparison, exit_code: int) -> dict[str, Any]:
    """JSON-ready: the ``result`` line."""
    return {
        "verdict": found.verdict.value,
        "reason": found.reason,
        "exit_code": exit_code,
        "a": _group_object(found.a),
        "b": _group_object(found.b),
        "differences": [
            {"part": item.part, "a": item.a, "b": item.b} for item in found.differences
        ],
        "figures": [_figure_object(item) for item in found.figures],
        "gates": [_gate_object(item) for item in found.gates],
    }


def _figure_object(item: FigureComparison) -> dict[str, Any]:
    return {
        "name": item.name,
        "unit": item.unit,
        "direction": item.direction.value,
        "a": item.a,
        "b": item.b,
        "ratio": item.ratio if item.ratio is not None and math.isfinite(item.ratio) else None,
        "interval": list(item.interval) if item.interval else None,
        "p": item.p,
        "tolerance": item.tolerance,
        "verdict": item.verdict.value,
        "reason": item.reason,
    }


def _gate_object(item: GateOutcome) -> dict[str, Any]:
    return {
        "metric": item.gate.metric,
        "rule": item.gate.rule,
        "reason": item.gate.reason,
        "place": item.gate.place,
        "verdict": item.verdict.value,
        "detail": item.detail,
    }


def _group_object(group: RunGroup) -> dict[str, Any]:
    return {"label": group.label, "runs": [run.run_id for run in group.runs]}


def _group(group: RunGroup) -> str:
    if len(group.runs) > 1:
        return f"{brief_text(group.label)}: {count_noun(len(group.runs), 'run')}"
    (run,) = group.runs
    return f"{run.run_id}  {brief_text(run.workload, 40)} on {brief_text(run.cluster, 40)}"


def _cells(item: FigureComparison, told: str) -> list[str]:
    interval = "" if item.interval is None else "{:.3f} to {:.3f}".format(*item.interval)
    return [
        brief_text(item.name, 48),
        _value(item.a, item.unit),
        _value(item.b, item.unit),
        "" if item.ratio is None else f"{item.ratio:.4f}",
        interval,
        f"{100 * item.tolerance:.1f} %",
        item.verdict.value,
        "" if item.reason == told else brief_text(item.reason, 100),
    ]


def _value(value: float | None, unit: str) -> str:
    return "missing" if value is None else format_figure(value, brief_text(unit, 24))
