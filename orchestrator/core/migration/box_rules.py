"""What one rule of a box says of two bundles: value, target, evidence, verdict. Pure.

A line that has nothing to look at is ``not-run``, which closes no box.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from orchestrator.core.base.figures import format_figure, format_number
from orchestrator.core.history.comparing import (
    ComparisonRules,
    FigureComparison,
    RunGroup,
    compare_groups,
)
from orchestrator.core.history.figure_gates import FigureGate, judge_gate
from orchestrator.core.history.run_record import RunFigure
from orchestrator.core.migration.evidence import Bundle, Machine, StepEvidence, WayBack
from orchestrator.core.migration.playbook import Box, Likeness, NoiseBound, Versions
from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.result import Verdict

# What must differ, or nothing would have moved.
HARDWARE = frozenset("gpus gpu_mode nodes serials driver cuda nccl torch".split())
NORMAL_95 = 1.959964
MAX_NAMED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleAnswer:
    """One rule's answer. ``evidence``: the runs or files that anybody can look at."""

    value: str
    target: str
    evidence: str
    verdict: Verdict


def judge_rules(
    box: Box, old: Bundle, new: Bundle, way_back: WayBack | None
) -> Iterator[RuleAnswer]:
    """A line for each rule that is set."""
    yield from (_step_ran(new.step(name)) for name in box.succeeded)
    yield from (_gate_line(gate, old, new) for gate in box.gates)
    if box.like:
        yield from _like_lines(box.like, old, new)
    if box.noise:
        yield _noise_line(box.noise, old, new)
    yield from (_trace_line(name, old, new) for name in box.traces)
    if box.versions:
        yield from (_version_line(box.versions, machine) for machine in new.machines)
    if box.way_back:
        yield _way_back_line(way_back)


def _step_ran(step: StepEvidence) -> RuleAnswer:
    states = sorted({run.status.value for run in step.runs})
    verdict = Verdict.PASS if step.succeeded else Verdict.FAIL if step.runs else Verdict.NOT_RUN
    value = f"{step.name}: {', '.join(states) or 'not run'}"
    return RuleAnswer(value=value, target="succeeded", evidence=step.text, verdict=verdict)


def _gate_line(gate: FigureGate, old: Bundle, new: Bundle) -> RuleAnswer:
    step = gate.metric.partition(".")[0]
    outcome = judge_gate(gate, new.figures, old.figures)
    value = f"{gate.metric}: {outcome.detail}"
    verdict = outcome.verdict
    if new.step(step).runs and not new.step(step).succeeded:
        verdict, value = Verdict.INVALID, f"{gate.metric}: its run did not succeed"
    return RuleAnswer(
        value=value,
        target=f"{gate.rule} ({gate.reason})",
        evidence=new.step(step).text,
        verdict=verdict,
    )


def _like_lines(like: Likeness, old: Bundle, new: Bundle) -> Iterator[RuleAnswer]:
    for name in like.steps:
        before, after = old.step(name), new.step(name)
        target = f"{name} within {format_number(100 * like.within)} % of the old"
        if not before.runs or not after.runs:
            side = "old" if not before.runs else "new"
            reason = (before if not before.runs else after).text
            value = f"no run on the {side} side"
            yield RuleAnswer(value=value, target=target, evidence=reason, verdict=Verdict.NOT_RUN)
            continue
        yield _compared(like, before, after, target)


def _compared(like: Likeness, before: StepEvidence, after: StepEvidence, target: str) -> RuleAnswer:
    rules = ComparisonRules(floor=like.within, across=HARDWARE)
    found = compare_groups(_group(before, like), _group(after, like), before.earlier, rules)
    judged = [one for one in found.figures if one.verdict is not Verdict.UNGATED]
    missing = set(like.figures) - {one.name for one in judged}
    if missing and found.verdict is not Verdict.INVALID:
        value, verdict = f"not reported: {', '.join(sorted(missing))}", Verdict.NOT_RUN
    elif found.verdict in {Verdict.PASS, Verdict.WARN} and not judged:
        value, verdict = "no figure has a direction", Verdict.NOT_RUN
    else:
        value, verdict = _value_of(judged, found.verdict, found.reason), found.verdict
    evidence = f"{before.text} -> {after.text}"
    return RuleAnswer(value=value, target=target, evidence=evidence, verdict=verdict)


def _group(step: StepEvidence, like: Likeness) -> RunGroup:
    """The step's runs with the figures that count: what they say of single nodes does not."""

    def counts(name: str, figure: RunFigure) -> bool:
        return name in like.figures if like.figures else figure.direction is not Direction.INFO

    runs = tuple(
        replace(run, figures={name: one for name, one in run.figures.items() if counts(name, one)})
        for run in step.runs
    )
    return RunGroup(step.name, runs)


def _value_of(figures: Iterable[FigureComparison], verdict: Verdict, reason: str) -> str:
    """The figures that decided."""
    if verdict is Verdict.INVALID:
        return reason
    decided = [one for one in figures if one.verdict is verdict]
    named = [f"{one.name} {_change_text(one)}" for one in decided[:MAX_NAMED]]
    more = [f"{len(decided) - MAX_NAMED} more"] if len(decided) > MAX_NAMED else []
    return ", ".join([*named, *more])


def _change_text(one: FigureComparison) -> str:
    if one.a is None or one.b is None:
        return one.reason
    shown = f"{format_figure(one.a, one.unit)} -> {format_figure(one.b, one.unit)}"
    return shown if one.ratio is None else f"{shown} ({100 * (one.ratio - 1):+.1f} %)"


def _noise_line(bound: NoiseBound, old: Bundle, new: Bundle) -> RuleAnswer:
    """Both are means over the same text: by the normal approximation, at 95 %, as if the two were
    independent, which asks for less than a paired test would.
    """
    names = (f"{bound.step}.{bound.figure}", f"{bound.step}.{bound.error}")
    values = [_number(bundle, name) for bundle in (old, new) for name in names]
    target = f"{names[0]} within noise of the old (95 %)"
    evidence = f"{old.step(bound.step).text} -> {new.step(bound.step).text}"
    before, before_error, after, after_error = values
    if before is None or after is None or before_error is None or after_error is None:
        lacking = [name for name, value in zip(names * 2, values, strict=True) if value is None]
        value = f"not reported: {', '.join(dict.fromkeys(lacking))}"
        return RuleAnswer(value=value, target=target, evidence=evidence, verdict=Verdict.NOT_RUN)
    allowed = NORMAL_95 * math.hypot(before_error, after_error)
    value = f"{before:.6g} -> {after:.6g}: {after - before:+.3g}, noise {allowed:.3g}"
    verdict = Verdict.PASS if abs(after - before) <= allowed else Verdict.FAIL
    if min(before_error, after_error) < 0:
        verdict = Verdict.INVALID
    return RuleAnswer(value=value, target=target, evidence=evidence, verdict=verdict)


def _number(bundle: Bundle, name: str) -> float | None:
    figure = bundle.figures.get(name)
    return figure.value if figure is not None and figure.measured else None


def _trace_line(name: str, old: Bundle, new: Bundle) -> RuleAnswer:
    """On both sides: without the old profile the new one explains nothing."""
    sides = {"old": old.step(name), "new": new.step(name)}
    lacking = [side for side, step in sides.items() if not step.traces]
    count = sum(len(step.traces) for step in sides.values())
    return RuleAnswer(
        value=f"{name}: no trace on the {' and the '.join(lacking)} side"
        if lacking
        else f"{name}: {count} files",
        target="traces of both sides in the bundles",
        evidence=", ".join(path for step in sides.values() for path in step.traces[:1]) or "none",
        verdict=Verdict.NOT_RUN if lacking else Verdict.PASS,
    )


def _version_line(wanted: Versions, machine: Machine) -> RuleAnswer:
    found = {"driver": machine.driver, "CUDA": machine.cuda}
    least = {"driver": wanted.driver, "CUDA": wanted.cuda}
    unknown = [name for name, version in found.items() if not version]
    older = [n for n in found if found[n] and _version(found[n]) < _version(least[n])]
    return RuleAnswer(
        value=f"{machine.node}: "
        + ", ".join(f"{name} {version or 'unknown'}" for name, version in found.items()),
        target=", ".join(f"{name} {version or 'known'}" for name, version in least.items()),
        evidence="machines.json",
        verdict=Verdict.NOT_RUN if unknown else Verdict.FAIL if older else Verdict.PASS,
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:4])


def _way_back_line(tried: WayBack | None) -> RuleAnswer:
    target = "its script restores the old set-up and the smoke step succeeds there"
    if tried is None:
        value = "not tried: --try-way-back"
        return RuleAnswer(
            value=value, target=target, evidence="way-back.sh", verdict=Verdict.NOT_RUN
        )
    verdict = Verdict.PASS if tried.succeeded and not tried.differences else Verdict.FAIL
    value = "; ".join([tried.ended, *tried.differences])
    return RuleAnswer(value=value, target=target, evidence="way-back.log", verdict=verdict)
