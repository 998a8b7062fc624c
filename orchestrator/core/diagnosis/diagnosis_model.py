"""What a diagnosis is made of: rules, the clues that they find in logs, and the verdict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from orchestrator.core.base.outcome import Outcome
from orchestrator.core.base.wire_names import wire

SHOWN_LINE = 400  # characters of a log line that a verdict carries
MAX_EVIDENCE = 5


class Domain(IntEnum):
    """Where a fault sits; where times do not tell, what is nearer to the metal comes first."""

    HARDWARE = 0
    FABRIC = 1
    HOST = 2
    LAUNCH = 3
    PROGRAM = 4


class FindingKind(StrEnum):
    """``CAUSE``: it says why. ``SYMPTOM``: the logs say how it ended, and not why. ``SPEED``: they
    hold no failure, only what costs speed.
    """

    CAUSE = "cause"
    SYMPTOM = "symptom"
    SPEED = "speed"


class LogRole(IntEnum):
    """What a clue is worth as the first cause; the lower value wins, whenever it was written.

    ``CAUSE`` explains itself. ``FAILURE``: a rank failed on its own, the reason stands elsewhere.
    ``CONDITION``: something was wrong with the machine, which may or may not matter. ``VAGUE``: a
    library gave up and does not say why. ``VICTIM``: another process failed first. ``STOPPED``: it
    was terminated or interrupted. ``SLOW`` costs speed and ends nothing. ``HARMLESS`` is never
    blamed.
    """

    CAUSE = 0
    FAILURE = 1
    CONDITION = 2
    VAGUE = 3
    VICTIM = 4
    STOPPED = 5
    SLOW = 6
    HARMLESS = 7

    @property
    def kind(self) -> FindingKind:
        """What a diagnosis is whose first clue has this role."""
        if self is LogRole.SLOW:
            return FindingKind.SPEED
        return FindingKind.SYMPTOM if self >= LogRole.VAGUE else FindingKind.CAUSE


class Confidence(StrEnum):
    """How much the evidence carries."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"

    def lower(self) -> Confidence:
        """One step less."""
        return Confidence.LIKELY if self is Confidence.CERTAIN else Confidence.POSSIBLE


class Advice(StrEnum):
    """What to do with the run: the same again, without the fabric, without the node, or nothing."""

    RETRY = "retry"
    LOWER_RUNG = "lower-rung"
    EXCLUDE_NODE = "exclude-node"
    GIVE_UP = "give-up"
    GO_ON = "go-on"


@dataclass(frozen=True, slots=True)
class Sign:
    """What gives a failure away in one line: ``text``, and around it ``pattern`` if that is not
    enough; in the frames of the traceback above it ``frames``, and in the lines near it ``around``,
    where messages have several. ``confidence``: where the line proves more or less than
    the rule's other signs. ``fills``: blanks of the rule's sentence that are known wherever the
    line is found.

    The patterns' named groups fill in the rule's sentence; ``rank``, ``local_rank`` and ``node``
    say whom the line is about, if not the one who wrote it; ``target`` is a node that a launcher
    on any node writes of. Patterns are bounded: no ``*``, no
    ``+``, so that no line can hold the reader up.
    """

    text: str
    pattern: re.Pattern[str] | None = None
    frames: re.Pattern[str] | None = None
    around: re.Pattern[str] | None = None
    confidence: Confidence | None = None
    fills: Mapping[str, str] = field(default_factory=dict)


def sign(
    text: str,
    pattern: str = "",
    *,
    frames: str = "",
    around: str = "",
    confidence: Confidence | None = None,
    **fills: str,
) -> Sign:
    """``pattern`` is searched in lines that hold ``text``."""
    return Sign(
        text,
        re.compile(pattern) if pattern else None,
        re.compile(frames) if frames else None,
        re.compile(around) if around else None,
        confidence,
        fills,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One known failure. ``id`` is stable. ``cause`` is a sentence with ``{captures}``, for which
    ``defaults`` stand in where a line does not tell; ``weight`` (1..100) says how specific it is.

    ``explains``: ids of rules that merely follow from this one where both are found.
    ``consequence`` completes "7 ranks ..." where others suffer from somebody else's failure;
    ``aftermath``: a process that only suffered may end like this, too.
    """

    id: str
    title: str
    domain: Domain
    cause: str
    remedy: str
    role: LogRole = LogRole.CAUSE
    advice: Advice = Advice.GIVE_UP
    confidence: Confidence = Confidence.LIKELY
    weight: int = 50
    signs: tuple[Sign, ...] = ()
    endings: tuple[Outcome, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    consequence: str = ""
    aftermath: bool = False
    explains: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSource:
    """Who wrote a line. ``rank`` None = a launcher, the kernel, or nobody knows; ``name`` is the
    file's for people.
    """

    name: str
    node: str = ""
    rank: int | None = None

    @property
    def who(self) -> str:
        """``rank 3 on gpu02``, as far as known; else ``a process (job.log)``."""
        return self._called("a process")

    @property
    def where(self) -> str:
        """The same, of whom something is told as a machine: else ``a node (job.log)``."""
        return self._called("a node")

    @property
    def key(self) -> tuple[str, str, int | None]:
        """A rank by its number, which is unique in a job; others by node and file."""
        return ("", "", self.rank) if self.rank is not None else (self.node, self.name, None)

    def _called(self, unknown: str) -> str:
        if self.rank is None:
            return self.node or f"{unknown} ({self.name.rpartition('/')[2]})"
        return f"rank {self.rank}" + (f" on {self.node}" if self.node else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clue:
    """A rule's sign in somebody's log, or in an ending or fact (``line`` 0 = in no file).

    ``at`` is seconds by the writer's wall clock, without the year (see :mod:`.lines`); None where
    nothing tells. ``order`` counts clues as they were read. ``joint``: it says something only
    together with the other clues of its rule. ``mild``: by the level of its line the program could
    go on. ``handled``: the program had caught the exception. ``confidence``: the sign's own.
    ``explaining``: something follows from it that was found, too. ``writer``: who wrote the line,
    if not ``source``, whom it is about. ``thrown``: an exception with its traceback.
    """

    rule: Rule
    source: LogSource
    line: int
    text: str
    captures: Mapping[str, str] = field(default_factory=dict)
    at: float | None = None
    order: int = 0
    joint: bool = False
    mild: bool = False
    handled: bool = False
    confidence: Confidence | None = None
    explaining: bool = False
    writer: LogSource | None = None
    thrown: bool = False

    @property
    def role(self) -> LogRole:
        """The rule's; of a mere warning no more than a condition, unless hardware is at fault.
        What explains another cause that was found is one itself.
        """
        if self.explaining:
            return LogRole.CAUSE
        if self.mild and self.rule.domain is not Domain.HARDWARE:
            return max(self.rule.role, LogRole.CONDITION)
        return self.rule.role

    @property
    def sure(self) -> Confidence:
        """How much this line carries by itself."""
        most = self.confidence or self.rule.confidence
        return most.lower() if self.mild or self.handled else most


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a rank ended by itself."""

    source: LogSource
    outcome: Outcome


@wire("Evidence")
@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A line to look at; ``line`` counts from 1, 0 = it is no line of a file."""

    file: str
    line: int
    text: str

    @property
    def place(self) -> str:
        """``file:line``."""
        return f"{self.file}:{self.line}" if self.line else self.file


@wire("Diagnosis")
@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The first cause, or what else was found (``kind``). ``who`` names its rank or node;
    ``consequences`` fold what others suffered; ``besides`` are other things found wrong, and of
    those ``alternatives`` what may as well have been first.
    """

    id: str
    title: str
    confidence: Confidence
    cause: str
    remedy: str
    advice: Advice
    node: str | None = None
    rank: int | None = None
    who: str = ""
    evidence: tuple[Evidence, ...] = ()
    consequences: tuple[str, ...] = ()
    besides: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    kind: FindingKind = FindingKind.CAUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that was found. ``diagnosis`` None: no rule knows what happened, unless it is known that
    ``nothing_failed``. ``telling``: where no rule knows why, the last lines that may say it.
    ``harmless``: ids of rules whose lines look bad and are not. ``ended_well``: where nothing was
    found, the last line by which all logs that were read show that the program ended as meant.
    """

    diagnosis: Diagnosis | None
    telling: tuple[Evidence, ...] = ()
    harmless: tuple[str, ...] = ()
    nothing_failed: bool = False
    ended_well: Evidence | None = None
