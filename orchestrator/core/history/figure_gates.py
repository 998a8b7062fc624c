"""Gates that people write down: a bound on a figure, or on how far it is from another. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.base.figures import format_number
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.history.run_record import RunFigure
from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.result import Verdict

_PREFIXES = {"n": 1e-9, "µ": 1e-6, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_PREFIXES |= {"T": 1e12, "P": 1e15}
_PREFIXES |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_SAME_UNITS = {"bytes": "B", "fraction": "", "ratio of 1": ""}


@dataclass(frozen=True, slots=True)
class Quantity:
    """A bound as it was written: ``2.4 kW``. Without a unit it is in the figure's own."""

    value: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{format_number(self.value)} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureGate:
    """One of ``at_least``, ``at_most`` or ``within`` (a fraction) is set. ``within`` is of the
    baseline's figure, or of the run's own figure ``of``. ``place``: where it is written.
    """

    metric: str
    reason: str
    at_least: Quantity | None = None
    at_most: Quantity | None = None
    within: float | None = None
    of: str | None = None
    place: str = ""

    @property
    def rule(self) -> str:
        """In words: ``within 3 % of the baseline``."""
        if self.within is not None:
            return f"within {format_number(100 * self.within)} % of {self.of or 'the baseline'}"
        words = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{word} {bound}" for word, bound in words if bound is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOutcome:
    """What ``gate`` says. ``detail``: the figures that decided it, or what is missing."""

    gate: FigureGate
    verdict: Verdict
    detail: str


def judge_gate(
    gate: FigureGate, figures: Mapping[str, RunFigure], baseline: Mapping[str, RunFigure]
) -> GateOutcome:
    """What ``gate`` says of a run's ``figures``, compared with those of the ``baseline``."""
    verdict, detail = _judge(gate, figures, baseline)
    return GateOutcome(gate=gate, verdict=verdict, detail=detail)


def _judge(
    gate: FigureGate, figures: Mapping[str, RunFigure], baseline: Mapping[str, RunFigure]
) -> tuple[Verdict, str]:
    figure = figures.get(gate.metric)
    if figure is None or figure.value is None or not figure.measured:
        return Verdict.NOT_RUN, _missing(gate.metric, figures)
    if gate.within is None:
        return _judge_bounds(gate, figure.value, figure.unit)
    source, name = (baseline, gate.metric) if gate.of is None else (figures, gate.of)
    other = source.get(name)
    if other is None or other.value is None or not other.measured:
        where = "the baseline: " if gate.of is None else ""
        return Verdict.NOT_RUN, where + _missing(name, source)
    if other.unit != figure.unit:
        return Verdict.INVALID, f"{figure.unit or 'no unit'} against {other.unit or 'no unit'}"
    return _judge_distance(gate.within, figure, figure.value, other.value)


def _judge_distance(
    within: float, figure: RunFigure, value: float, other: float
) -> tuple[Verdict, str]:
    """Only the worse side counts where the workload declares which that is."""
    if other == 0:
        return Verdict.INVALID, "the figure to compare with is 0"
    change = (value - other) / abs(other)
    worse = -change if figure.direction is Direction.HIGHER else change
    distance = abs(change) if figure.direction is Direction.INFO else worse
    detail = f"{format_number(value)} against {format_number(other)}: {100 * change:+.1f} %"
    return (Verdict.PASS if distance <= within else Verdict.FAIL), detail


def _judge_bounds(gate: FigureGate, value: float, unit: str) -> tuple[Verdict, str]:
    for bound, sign in ((gate.at_least, 1), (gate.at_most, -1)):
        if bound is None:
            continue
        limit = convert_quantity(bound, unit)
        if limit is None:
            return Verdict.INVALID, f"{bound} is no measure of {unit or 'a number without unit'}"
        if sign * value < sign * limit:
            return Verdict.FAIL, f"{format_number(value)} {unit}".rstrip()
    return Verdict.PASS, f"{format_number(value)} {unit}".rstrip()


def convert_quantity(quantity: Quantity, unit: str) -> float | None:
    """``quantity`` in ``unit``; None where it measures something else."""
    if not quantity.unit:
        return quantity.value
    if quantity.unit == "%" and unit in {"fraction", "ratio of 1"}:
        return quantity.value / 100
    wanted, given = (_SAME_UNITS.get(text, text) for text in (unit, quantity.unit))
    if wanted == given:
        return quantity.value
    for prefix, scale in _PREFIXES.items():
        for own, own_scale in _PREFIXES.items():
            base = given[len(prefix) :]
            if base and given == prefix + base and wanted == own + base:
                return quantity.value * scale / own_scale
    return None


def _missing(name: str, figures: Mapping[str, RunFigure]) -> str:
    if name in figures:
        return f"{name} was not reported"
    known = did_you_mean(name, figures) if figures else "it has no figures"
    return f"{name} is no figure of it: {known}"
