"""Two runs, or groups of runs, figure by figure: like with like, effect and evidence. Pure.

A figure fails where it is worse by more than its tolerance, and that by more than chance explains
after the correction for the number of figures. Where nothing is known of the noise, the tolerance
alone decides. Tolerance: the larger of a floor and three sigma of what earlier runs showed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from orchestrator.core.history.figure_gates import FigureGate, GateOutcome, judge_gate
from orchestrator.core.history.run_record import (
    KeyDifference,
    RunFigure,
    RunRecord,
    key_differences,
)
from orchestrator.core.history.statistics import (
    CONFIDENCE,
    Noise,
    RatioEstimate,
    estimate_ratio,
    holm_adjust,
    observed_noise,
)
from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.result import Status, Verdict

DEFAULT_FLOOR = 0.03
SIGMAS = 3.0
# The worst decides.
_SEVERITY = (
    Verdict.UNGATED,
    Verdict.PASS,
    Verdict.WARN,
    Verdict.NOT_RUN,
    Verdict.FAIL,
    Verdict.INVALID,
)


@dataclass(frozen=True, slots=True)
class RunGroup:
    """What one side of a comparison is: ``label`` as it was asked for, and its runs."""

    label: str
    runs: tuple[RunRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureComparison:
    """``a`` and ``b`` are medians, None = missing. ``ratio`` is b over a with its 95 % interval;
    ``p`` is corrected for the number of figures; ``tolerance`` is relative.
    """

    name: str
    unit: str
    direction: Direction
    a: float | None
    b: float | None
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    tolerance: float = DEFAULT_FLOOR
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsComparison:
    """``differences``: parts of the key in which the sides differ and that nobody allowed."""

    a: RunGroup
    b: RunGroup
    differences: tuple[KeyDifference, ...]
    figures: tuple[FigureComparison, ...]
    gates: tuple[GateOutcome, ...]
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRules:
    """``floor``: the least relative change that matters. ``across``: parts of the key that may
    differ. ``gates`` come on top of what is judged without them.
    """

    floor: float = DEFAULT_FLOOR
    across: frozenset[str] = frozenset()
    gates: tuple[FigureGate, ...] = ()


def compare_groups(
    a: RunGroup, b: RunGroup, earlier: Sequence[RunRecord], rules: ComparisonRules
) -> RunsComparison:
    """``b`` against ``a``. ``earlier``: runs of the key of ``a``, which tell how figures vary."""
    differences = _differences(a, b, rules.across)
    gates = tuple(judge_gate(gate, _medians(b.runs), _medians(a.runs)) for gate in rules.gates)
    refusal = _unlike(a, b, differences)
    drafts = [_compare_figure(name, a, b, earlier, rules.floor) for name in _names(a, b)]
    figures = tuple(
        replace(figure, verdict=Verdict.INVALID, reason=refusal) if refusal else figure
        for figure in _decide(drafts)
    )
    verdict = Verdict.INVALID if refusal else _worst(figures, gates)
    return RunsComparison(
        a=a,
        b=b,
        differences=differences,
        figures=figures,
        gates=gates,
        verdict=verdict,
        reason=refusal or _sum_up(figures, gates),
    )


def _differences(a: RunGroup, b: RunGroup, across: frozenset[str]) -> tuple[KeyDifference, ...]:
    first = a.runs[0].key
    found = {
        difference.part: difference
        for run in (*a.runs, *b.runs)
        for difference in key_differences(first, run.key)
        if difference.part not in across
    }
    return tuple(found.values())


def _unlike(a: RunGroup, b: RunGroup, differences: Sequence[KeyDifference]) -> str:
    """Why the groups cannot be compared; empty if they can."""
    if differences:
        return f"not alike: {'; '.join(map(str, differences))}"
    for run in (*a.runs, *b.runs):
        if run.status is not Status.SUCCEEDED:
            return f"run {run.run_id} is {run.status.value}"
    return ""


def _names(a: RunGroup, b: RunGroup) -> list[str]:
    return list(dict.fromkeys(name for run in (*a.runs, *b.runs) for name in run.figures))


def _medians(runs: Sequence[RunRecord]) -> Mapping[str, RunFigure]:
    """The figures of a group, each by its median."""
    found: dict[str, RunFigure] = {}
    for name in dict.fromkeys(name for run in runs for name in run.figures):
        known = [run.figures[name] for run in runs if name in run.figures]
        values = _values(runs, name)
        found[name] = replace(known[0], value=median(values) if values else None)
    return found


def _values(runs: Sequence[RunRecord], name: str) -> list[float]:
    figures = (run.figures.get(name) for run in runs)
    return [f.value for f in figures if f is not None and f.value is not None and f.measured]


def _compare_figure(
    name: str, a: RunGroup, b: RunGroup, earlier: Sequence[RunRecord], floor: float
) -> FigureComparison:
    """With a draft of the verdict; the correction for the number of figures comes after it."""
    known = [run.figures[name] for run in (*b.runs, *a.runs) if name in run.figures]
    unit, direction = known[0].unit, known[0].direction
    before, after = _values(a.runs, name), _values(b.runs, name)
    draft = FigureComparison(
        name=name,
        unit=unit,
        direction=direction,
        a=median(before) if before else None,
        b=median(after) if after else None,
        tolerance=floor,
        verdict=Verdict.PASS,
        reason="",
    )
    if len(after) < len(b.runs):
        what = f"not reported by {len(b.runs) - len(after)} of {len(b.runs)} runs"
        return replace(draft, verdict=Verdict.NOT_RUN, reason=what)
    if not before:
        return replace(draft, verdict=Verdict.WARN, reason="no figure to compare it with")
    units = {figure.unit for figure in known}
    if len(units) > 1:
        what = f"units differ: {' and '.join(sorted(units))}"
        return replace(draft, verdict=Verdict.INVALID, reason=what)
    noise = observed_noise(_values(earlier, name))
    return _with_estimate(draft, estimate_ratio(before, after, noise), noise, a, b)


def _with_estimate(
    draft: FigureComparison,
    estimate: RatioEstimate | None,
    noise: Noise | None,
    a: RunGroup,
    b: RunGroup,
) -> FigureComparison:
    if estimate is None:
        return replace(draft, reason="not above 0: judged without a ratio")
    sides = math.sqrt((1 / len(a.runs) + 1 / len(b.runs)) / 2)
    tolerance = max(draft.tolerance, SIGMAS * noise.sigma * sides if noise else 0.0)
    interval = None
    if estimate.low is not None and estimate.high is not None:
        interval = (estimate.low, estimate.high)
    return replace(
        draft,
        ratio=estimate.ratio,
        interval=interval,
        p=estimate.p,
        tolerance=tolerance,
        reason=estimate.method,
    )


def _decide(drafts: Sequence[FigureComparison]) -> list[FigureComparison]:
    """Verdicts of all figures together: those with a direction are corrected for their number."""
    family = [index for index, figure in enumerate(drafts) if _in_family(figure)]
    adjusted = dict(
        zip(family, holm_adjust([drafts[index].p or 0.0 for index in family]), strict=True)
    )
    return [
        _judge_figure(replace(figure, p=adjusted.get(index, figure.p)))
        for index, figure in enumerate(drafts)
    ]


def _in_family(figure: FigureComparison) -> bool:
    return figure.p is not None and figure.direction is not Direction.INFO


def _judge_figure(figure: FigureComparison) -> FigureComparison:
    if figure.verdict is not Verdict.PASS:
        return figure
    if figure.direction is Direction.INFO:
        reason = "not judged: no direction is declared"
        return replace(figure, verdict=Verdict.UNGATED, reason=reason)
    change = _change(figure)
    if abs(change) <= figure.tolerance:
        return figure
    worse = (change > 0) == (figure.direction is Direction.LOWER)
    by_chance = figure.p is not None and figure.p > 1 - CONFIDENCE
    words = f"{_percent(change)}, {figure.reason}"
    if not worse:
        return replace(figure, verdict=Verdict.WARN, reason=f"better by more than noise: {words}")
    if by_chance:
        reason = f"worse, but within chance (p {figure.p:.2g}): {words}"
        return replace(figure, verdict=Verdict.WARN, reason=reason)
    return replace(figure, verdict=Verdict.FAIL, reason=f"worse: {words}")


def _change(figure: FigureComparison) -> float:
    if figure.ratio is not None:
        return figure.ratio - 1
    assert figure.a is not None
    assert figure.b is not None
    if figure.a == 0:
        return math.copysign(math.inf, figure.b) if figure.b else 0.0
    return (figure.b - figure.a) / abs(figure.a)


def _percent(change: float) -> str:
    return f"{100 * change:+.1f} %" if math.isfinite(change) else "from 0"


def _worst(figures: Sequence[FigureComparison], gates: Sequence[GateOutcome]) -> Verdict:
    if _nothing_judged(figures, gates):
        return Verdict.NOT_RUN
    found = [*(figure.verdict for figure in figures), *(gate.verdict for gate in gates)]
    return max(found, key=_SEVERITY.index) if found else Verdict.NOT_RUN


def _nothing_judged(figures: Sequence[FigureComparison], gates: Sequence[GateOutcome]) -> bool:
    """Whether a pass would mean nothing: each figure is there, and none could have failed."""
    shown_alone = all(figure.verdict is Verdict.UNGATED for figure in figures)
    return bool(figures) and shown_alone and not gates


def _sum_up(figures: Sequence[FigureComparison], gates: Sequence[GateOutcome]) -> str:
    if not figures:
        return "no figures to compare"
    if _nothing_judged(figures, gates):
        return "no figure was judged: none has a declared direction; --gates FILE sets limits"
    verdicts = [*(figure.verdict for figure in figures), *(gate.verdict for gate in gates)]
    counts = ((verdicts.count(verdict), verdict.value) for verdict in reversed(_SEVERITY))
    return ", ".join(f"{count} {word}" for count, word in counts if count)
