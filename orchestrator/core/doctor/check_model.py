"""What a check is, what it is told of, and what it may answer. Data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.base.wire_names import wire
from orchestrator.core.fabric.fabric_verdict import FabricVerdict
from orchestrator.core.model.facts import Facts, Gpu, Hca, Xid
from orchestrator.core.model.inventory import NodeSpec


class State(StrEnum):
    """UNKNOWN was not measured, which is never OK; NONE does not apply to the node."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"
    NONE = "none"


class Level(StrEnum):
    """How much time a check takes: one look at the nodes, or two with a while between them."""

    QUICK = "quick"
    TWO_MINUTES = "2min"


class Needs(StrEnum):
    """What a node must have for a check to apply to it."""

    NOTHING = "nothing"
    GPUS = "GPUs"
    ADAPTERS = "adapters"


@wire("PastLook")
@dataclass(frozen=True, slots=True, kw_only=True)
class PastLook:
    """What an earlier examination found of a node. ``at``: seconds since 1970; ``address`` is how
    SSH found it; ``failed`` are ids of checks; ``xids`` those of the kernel's log at that time, of
    the boot that ``boot_id`` names.
    """

    at: float
    node: str
    address: str
    boot_id: str = ""
    failed: tuple[str, ...] = ()
    xids: tuple[Xid, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A node. ``facts`` None: it could not be asked, and ``error`` says why and ``remedy`` what to
    do. ``later`` is a second look, a while after the first; ``past`` are earlier examinations, the
    oldest first, None = they cannot be read; ``at`` is the time of this one, in seconds since 1970.
    """

    spec: NodeSpec
    facts: Facts | None = None
    later: Facts | None = None
    error: str = ""
    remedy: str = ""
    past: tuple[PastLook, ...] | None = ()
    at: float = 0.0

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def apart_s(self) -> float | None:
        """Seconds between the two looks by the node's own clock; None after a reboot."""
        first, second = self.facts, self.later
        if first is None or second is None or first.boot_id != second.boot_id:
            return None
        if first.uptime_s is None or second.uptime_s is None:
            return None
        return second.uptime_s - first.uptime_s


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckAnswer:
    """A state and, unless all is well, what was found. ``remedy`` "" = what the check says."""

    state: State
    what: str = ""
    remedy: str = ""


OK = CheckAnswer(state=State.OK)
NONE = CheckAnswer(state=State.NONE)


def warn_answer(what: str) -> CheckAnswer:
    return CheckAnswer(state=State.WARN, what=what)


def fail_answer(what: str, remedy: str = "") -> CheckAnswer:
    return CheckAnswer(state=State.FAIL, what=what, remedy=remedy)


def unknown_answer(what: str) -> CheckAnswer:
    return CheckAnswer(state=State.UNKNOWN, what=what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """The links between the nodes: ``broken`` is what is at fault, part by part; ``unasked`` maps
    nodes whose links could not be looked at to why.
    """

    broken: tuple[FabricVerdict, ...] = ()
    unasked: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All nodes together: what one of them has is judged by what the others have. ``mesh`` None:
    there are no links, for there is one machine.
    """

    subjects: tuple[Subject, ...]
    mesh: Mesh | None = None

    @property
    def facts(self) -> tuple[Facts, ...]:
        return tuple(s.facts for s in self.subjects if s.facts is not None)

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        return tuple(gpu for facts in self.facts for gpu in facts.gpus)

    @property
    def hcas(self) -> tuple[Hca, ...]:
        return tuple(hca for facts in self.facts for hca in facts.hcas)

    def usual(self, value: Callable[[Facts], object]) -> object:
        """What most nodes have, of those that know; None when nobody does."""
        counts = Counter(found for found in map(value, self.facts) if found)
        return counts.most_common(1)[0][0] if counts else None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedNode:
    """A node that a check judges: what it has, and what the others have."""

    subject: Subject
    facts: Facts
    fleet: Fleet


Judge = Callable[[CheckedNode], CheckAnswer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A rule. ``id`` is stable; ``remedy`` is one line, for whoever has the red cell in front."""

    id: str
    name: str
    remedy: str
    judge: Judge
    needs: Needs = Needs.NOTHING
    level: Level = Level.QUICK


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one check says of one node."""

    node: str
    check: str
    name: str
    state: State
    what: str = ""
    remedy: str = ""


def worst_answer(answers: Iterable[CheckAnswer]) -> CheckAnswer:
    """The gravest state, with all that was found in that state."""
    found = list(answers)
    for state in (State.FAIL, State.WARN, State.UNKNOWN):
        texts = [answer.what for answer in found if answer.state is state]
        if texts:
            return CheckAnswer(state=state, what="; ".join(dict.fromkeys(texts)))
    return OK if any(answer.state is State.OK for answer in found) else NONE


def answer_each(label: str, items: Sequence[tuple[object, CheckAnswer]]) -> CheckAnswer:
    """:func:`worst_answer` of numbered things: those that say the same are named together."""
    alike: dict[CheckAnswer, list[str]] = {}
    for number, answer in items:
        alike.setdefault(answer, []).append(str(number))
    return worst_answer(_label_answer(label, numbers, answer) for answer, numbers in alike.items())


def _label_answer(label: str, numbers: Sequence[str], answer: CheckAnswer) -> CheckAnswer:
    where = f"{label} {','.join(numbers)}: "
    return CheckAnswer(state=answer.state, what=where + answer.what if answer.what else "")
