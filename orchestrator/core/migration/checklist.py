"""The checklist: every box with its lines, what physics says of expectations, GO or NO-GO. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.history.figure_gates import Quantity, convert_quantity
from orchestrator.core.migration.box_rules import RuleAnswer, judge_rules
from orchestrator.core.migration.evidence import Bundle, WayBack
from orchestrator.core.migration.playbook import Box, ExpectedFigure, Playbook
from orchestrator.core.verdict.result import Verdict

# The worst decides; what was not run is as open as what failed.
_SEVERITY = (
    Verdict.PASS,
    Verdict.WARN,
    Verdict.UNGATED,
    Verdict.NOT_RUN,
    Verdict.INVALID,
    Verdict.FAIL,
)
CLOSED = frozenset({Verdict.PASS, Verdict.WARN})
# Of the best public figure: a card that does no more is not accepted (limits.json of acceptance).
LEAST_OF_BEST, LEAST_OF_LIMIT = 0.8, 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalBound:
    """What a quantity can be at most by the datasheet, and the best that anybody published; in
    ``unit``, None = not known.
    """

    unit: str
    limit: float | None = None
    best: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """An expectation that physics contradicts, and how."""

    expectation: ExpectedFigure
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxOutcome:
    """``verdict`` None: the box does not apply, and ``why`` says so."""

    box: Box
    lines: tuple[RuleAnswer, ...] = ()
    verdict: Verdict | None = None
    why: str = ""

    @property
    def open(self) -> bool:
        return self.verdict is not None and self.verdict not in CLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Checklist:
    """``go``: every box that applies is closed, and at least one does."""

    playbook: Playbook
    old: Bundle
    new: Bundle
    boxes: tuple[BoxOutcome, ...]
    flags: tuple[Flag, ...]

    @property
    def open_boxes(self) -> tuple[BoxOutcome, ...]:
        return tuple(outcome for outcome in self.boxes if outcome.open)

    @property
    def go(self) -> bool:
        applying = [outcome for outcome in self.boxes if outcome.verdict is not None]
        return bool(applying) and not self.open_boxes


def fill_checklist(
    playbook: Playbook,
    old: Bundle,
    new: Bundle,
    way_back: WayBack | None,
    bounds: Mapping[str, PhysicalBound],
) -> Checklist:
    """``bounds``: by ``step.figure``, of the new bundle's GPUs."""
    return Checklist(
        playbook=playbook,
        old=old,
        new=new,
        boxes=tuple(_fill_box(box, old, new, way_back) for box in playbook.boxes),
        flags=tuple(_flags(playbook.expectations, bounds)),
    )


def _fill_box(box: Box, old: Bundle, new: Bundle, way_back: WayBack | None) -> BoxOutcome:
    gpus = new.gpus
    if gpus is not None and not box.applies.holds(gpus):
        return BoxOutcome(box=box, why=f"for {box.applies.text} only")
    lines = tuple(judge_rules(box, old, new, way_back))
    found = [line.verdict for line in lines] or [Verdict.NOT_RUN]
    return BoxOutcome(box=box, lines=lines, verdict=max(found, key=_SEVERITY.index))


def _flags(
    expectations: Sequence[ExpectedFigure], bounds: Mapping[str, PhysicalBound]
) -> list[Flag]:
    found = []
    for expectation in expectations:
        bound = bounds.get(expectation.metric)
        what = contradiction(expectation.value, bound) if bound else ""
        if what:
            found.append(Flag(expectation=expectation, what=what))
    return found


def contradiction(expected: Quantity, bound: PhysicalBound) -> str:
    """How physics contradicts ``expected``; empty where it does not, or nothing is known."""
    value = convert_quantity(expected, bound.unit)
    if value is None:
        return f"{expected} is no measure of {bound.unit}"
    if bound.limit is not None and value > bound.limit:
        return f"above the limit of {bound.limit:g} {bound.unit} ({bound.source})"
    if bound.best is not None and value < LEAST_OF_BEST * bound.best:
        share = f"{value / bound.best:.0%} of the best public figure, {bound.best:g} {bound.unit}"
        return f"only {share} ({bound.source}): a card that does no more should be refused"
    if bound.best is None and bound.limit is not None and value < LEAST_OF_LIMIT * bound.limit:
        share = f"{value / bound.limit:.0%} of the limit, {bound.limit:g} {bound.unit}"
        return f"only {share} ({bound.source}): a card that does no more should be refused"
    return ""
