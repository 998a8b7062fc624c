"""Every check on every node. Pure: facts in, readings out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core.doctor.check_model import (
    NONE,
    Check,
    CheckAnswer,
    CheckedNode,
    Fleet,
    Level,
    Mesh,
    Needs,
    PastLook,
    Reading,
    State,
    Subject,
    fail_answer,
    unknown_answer,
)
from orchestrator.core.doctor.rules import CHECKS
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.inventory import NodeSpec

NOT_ASKED = "it could not be asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """All readings, node by node, in the order of the checks."""

    readings: tuple[Reading, ...]

    def count(self, state: State) -> int:
        return Counter(reading.state for reading in self.readings)[state]

    @property
    def status(self) -> str:
        """``healthy``; ``unproven`` if something was not measured; ``unfit`` if a check failed."""
        if self.count(State.FAIL):
            return "unfit"
        return "unproven" if self.count(State.UNKNOWN) else "healthy"


def run_checks(subjects: Sequence[Subject], level: Level, mesh: Mesh | None = None) -> Examination:
    """What the checks of ``level`` and below say. A node that did not answer fails the first one,
    and all others are unknown.
    """
    fleet = Fleet(subjects=tuple(subjects), mesh=mesh)
    checks = [check for check in CHECKS if check.level is Level.QUICK or level is not Level.QUICK]
    return Examination(
        readings=tuple(
            _make_reading(check, subject, _answer_check(check, subject, fleet))
            for subject in subjects
            for check in checks
        )
    )


def readings_in(examined: Examination, *states: State) -> Iterator[Reading]:
    """The readings in one of ``states``, in the order of the states."""
    for state in states:
        yield from (reading for reading in examined.readings if reading.state is state)


def looks_to_keep(examined: Examination, subjects: Sequence[Subject]) -> list[PastLook]:
    """What later examinations need to know of this one.

    Only what every examination looks at: a check of two looks that is not asked is not repaired.
    """
    quick = {check.id for check in CHECKS if check.level is Level.QUICK}
    failed: defaultdict[str, list[str]] = defaultdict(list)
    for reading in readings_in(examined, State.FAIL):
        if reading.check in quick:
            failed[reading.node].append(reading.check)
    return [_look_to_keep(subject, failed[subject.name]) for subject in subjects]


def _look_to_keep(subject: Subject, failed: Sequence[str]) -> PastLook:
    facts = subject.facts
    return PastLook(
        at=subject.at,
        node=subject.name,
        address=_address(subject.spec),
        boot_id=facts.boot_id if facts else "",
        failed=tuple(failed),
        xids=(facts.xids or ()) if facts else (),
    )


def looks_at(
    past: Sequence[PastLook], specs: Sequence[NodeSpec]
) -> dict[str, tuple[PastLook, ...]]:
    """Node -> those of its machine: other clusters may have a node of its name."""
    found: defaultdict[tuple[str, str], list[PastLook]] = defaultdict(list)
    for look in past:
        found[look.node, look.address].append(look)
    return {spec.name: tuple(found[spec.name, _address(spec)]) for spec in specs}


def _address(spec: NodeSpec) -> str:
    return " ".join(spec.ssh.argv)


def _answer_check(check: Check, subject: Subject, fleet: Fleet) -> CheckAnswer:
    facts = subject.facts
    if facts is None:
        answers = check is CHECKS[0]
        if answers:
            return fail_answer(subject.error or "no answer", subject.remedy)
        return unknown_answer(NOT_ASKED)
    if not _check_applies(check, facts):
        return NONE
    return check.judge(CheckedNode(subject=subject, facts=facts, fleet=fleet))


def _check_applies(check: Check, facts: Facts) -> bool:
    if check.needs is Needs.GPUS:
        return bool(facts.gpus)
    if check.needs is Needs.ADAPTERS:
        return bool(facts.hcas)
    return True


def _make_reading(check: Check, subject: Subject, answer: CheckAnswer) -> Reading:
    healthy = answer.state in (State.OK, State.NONE)
    return Reading(
        node=subject.name,
        check=check.id,
        name=check.name,
        state=answer.state,
        what=answer.what,
        remedy="" if healthy else answer.remedy or check.remedy,
    )
