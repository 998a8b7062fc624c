"""What rules find in one stretch of a log."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from orchestrator.core.diagnosis.diagnosis_model import (
    SHOWN_LINE,
    Clue,
    Confidence,
    LogRole,
    LogSource,
    Rule,
    Sign,
)
from orchestrator.core.diagnosis.line_prefixes import Head, read_head
from orchestrator.core.diagnosis.observations import OBSERVED, Remark
from orchestrator.core.diagnosis.rules import BY_ID, RULES
from orchestrator.core.diagnosis.signs import SignTable, line_end
from orchestrator.core.diagnosis.stretch import LOOK_BACK, MAX_DETAIL, NEAR, NEAR_LINES, Stretch
from orchestrator.core.diagnosis.tracebacks import Raised
from orchestrator.core.diagnosis.wordings import (
    CAUGHT,
    REFUSED,
    SAYS_NOTHING,
    SPEECH,
    SURVIVED,
    UNLOGGED,
)

_RANK = re.compile(r"[0-9]{1,9}")
# An entry of torchrun's summary, which ends with the traceback that the rank left in a file.
_SUMMARY = re.compile(
    r"\bhost {1,12}: (?P<node>[\w.-]{1,120})\s{1,40}rank {1,12}: (?P<rank>\d{1,6}) "
)
_IN_SUMMARY, _BEHIND_IT = "traceback : Traceback ", "\n------------"
# ``Local host: w1`` in a box of Open MPI, whose other lines say what happened there.
_RULE = "-" * 40
_BOXED = re.compile(
    r"^[^\n:]{0,40}?\b(?:Node|Local host|Host|Hostname|Node name): {1,20}([\w.-]{1,120})$",
    re.MULTILINE,
)
_ADDRESS = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}|[0-9a-f]{0,4}:[0-9a-f:.]{2,40}")
_KERNEL = re.compile(r"\[[^\]\n]{5,30}\] ")  # a line of dmesg
_EXCEPTION = BY_ID["PY-EXC-001"]
_SILENT = BY_ID["PY-EXC-002"]
_PLAIN = (_EXCEPTION, _SILENT)
_INTERRUPT = BY_ID["PY-INT-001"]
_ABORT = BY_ID["PY-ABORT-001"]
_WHAT = "what():"  # the words of an exception that C++ threw, below its name

_Owner = Rule | str
_TABLE: SignTable[_Owner] = SignTable(
    [(rule, sign) for rule in RULES for sign in rule.signs]
    + [(kind, sign) for kind, signs in OBSERVED.items() for sign in signs]
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a stretch holds: clues, at most one a line, and remarks."""

    clues: tuple[Clue, ...]
    remarks: tuple[Remark, ...]


def match_rules(
    stretch: str,
    source: LogSource,
    *,
    first_line: int = 1,
    at: float | None = None,
    before: str = "",
) -> Found:
    """Every line of ``stretch`` that a rule knows. Its first line is number ``first_line`` of
    ``source``; ``at`` is the last time that was read before it, ``before`` whole lines before it.
    """
    text = Stretch(before + stretch, source, at)
    hits = _TABLE.find(text.content, len(before))
    ends = {each.line for each in text.raised if each.line >= len(before)}
    clues: list[tuple[Clue, Raised | None]] = []
    remarks: list[Remark] = []
    number, counted = first_line, len(before)
    for start in sorted(hits.keys() | ends):
        number += text.content.count("\n", counted, start)
        counted = start
        if not text.is_quoted(start):
            line = _Line(text, start, number)
            clue = _best_clue(line, hits.get(start, ()))
            if clue is not None and not (clue.rule in _PLAIN and line.is_refusal):
                clues.append((_as_it_ended(clue, line, text), line.raised))
            remarks += _find_remarks(line, hits.get(start, ()))
    remarks += text.signs_of_life(first_line, len(before))
    return Found(tuple(_without_echoes(clues)), tuple(remarks))


def _without_echoes(clues: Sequence[tuple[Clue, Raised | None]]) -> Iterator[Clue]:
    """Of exceptions, also those of C++, only those that began it and of whose words no rule knows
    more.
    """
    known = {raised.line for clue, raised in clues if raised and clue.rule not in _PLAIN}
    spoken = {clue.line for clue, _ in clues if _WHAT in clue.text and clue.rule is not _ABORT}
    for clue, raised in clues:
        plain = clue.rule in _PLAIN
        echo = plain and raised and (raised.follows or raised.line in known)
        thrown = clue.rule is _ABORT and not spoken.isdisjoint(range(clue.line, clue.line + 4))
        if not (echo or thrown):
            yield clue


class _Line:
    """One line of a stretch, of which is read what is asked for."""

    def __init__(self, text: Stretch, start: int, number: int) -> None:
        self.number = number
        self.start = start
        self.text = text.content[start : line_end(text.content, start)]
        self.raised = text.raised_at(start)
        self._within = text

    @cached_property
    def head(self) -> Head:
        """What its prefixes tell; or those of the traceback, whose lines have none."""
        own = self._within.head_of(self.text)
        if self.raised is None or own.node or own.rank is not None:
            return own
        first = self._within.introduced(self.raised)
        return replace(own, node=first.node, rank=first.rank, mild=own.mild or first.mild)

    @cached_property
    def own_words(self) -> str:
        """What the program itself says in this line: without prefixes and quoted speech."""
        speech = SPEECH.search(self.head.text)
        return self.head.text if speech is None else self.head.text[: speech.start()]

    @cached_property
    def is_survived(self) -> bool:
        """Whether the program goes on, by the words of this line."""
        return self.raised is None and SURVIVED.search(self.head.text) is not None

    def is_caught(self, rule: Rule) -> bool:
        """Whether the line above its traceback says that the program goes on."""
        above = None if self.raised is None else self._within.announcement(self.raised)
        if above is None or above.rank != self.head.rank:
            return False
        unlogged = rule in _PLAIN and UNLOGGED in above.text
        return unlogged or CAUGHT.search(above.text) is not None

    @cached_property
    def is_refusal(self) -> bool:
        """Whether the lines at once below an exception tell that its writer refused a request."""
        end = self.start + len(self.text) if self.raised is None else self.raised.end
        below = self._within.content[end : end + NEAR].split("\n")[1:NEAR_LINES]
        heads = [read_head(each) for each in below if REFUSED.search(each)]
        return any((each.node, each.rank) == (self.head.node, self.head.rank) for each in heads)

    @cached_property
    def frames(self) -> str:
        """The frames of the traceback that ends here."""
        return "" if self.raised is None else self._within.content[self.raised.begin : self.start]

    @cached_property
    def around(self) -> str:
        """The lines near it, those before it first."""
        content, end = self._within.content, self.start + len(self.text)
        before = content[max(0, self.start - NEAR) : self.start].split("\n")[-NEAR_LINES - 1 :]
        return "\n".join([*before, *content[end : end + NEAR].split("\n")[: 2 * NEAR_LINES]])

    @cached_property
    def around_alone(self) -> str:
        """The same without the lines of other ranks, which may stand between."""
        content, end = self._within.content, self.start + len(self.text)
        before = self._own(content[max(0, self.start - 2 * NEAR) : self.start].split("\n")[:-1])
        after = self._own(content[end : end + 2 * NEAR].split("\n")[1:])
        return "\n".join([*before[-NEAR_LINES:], "", *after[: 2 * NEAR_LINES - 1]])

    def _own(self, lines: Sequence[str]) -> list[str]:
        return [line for line in lines if read_head(line).rank in {None, self.head.rank}]

    @cached_property
    def boxed_node(self) -> str:
        """The node that MPI's launchers name in a message that they set between two rules."""
        boxes = (near for near in (self.around, self.around_alone) if _RULE in near)
        match = next((found for near in boxes if (found := _BOXED.search(near))), None)
        return "" if match is None else match[1]

    @property
    def summary_entry(self) -> re.Match[str] | None:
        """The entry of torchrun's summary to which the line belongs."""
        before = self._within.content[max(0, self.start - LOOK_BACK) : self.start]
        at = before.rfind(_IN_SUMMARY)
        if at < 0 or _BEHIND_IT in before[at:].replace("=", "-"):
            return None
        entries = deque(_SUMMARY.finditer(before, max(0, at - NEAR), at), maxlen=1)
        return entries[0] if entries else None

    @property
    def shown(self) -> str:
        return self.text[:SHOWN_LINE].strip()

    @property
    def at(self) -> float | None:
        return self._within.time(self.start, self.text)

    def writer(self, told: dict[str, str]) -> LogSource:
        """Whom the line is about: as it says, else its prefix, else the file's name. What a
        launcher says of a ``target`` is of that node, whoever wrote it.
        """
        source, rank = self._within.source, self.head.rank
        if (target := told.get("target")) is not None:
            ranked = told.get("rank", "")
            # What a parallel shell prints behind a name is of the node with that name.
            behind = self.text.startswith(f"{self.head.node}: ")
            named = self.head.node if behind and _ADDRESS.fullmatch(target) else ""
            return replace(source, rank=int(ranked) if ranked else None, node=named or target)
        for name in ("rank", "local_rank"):
            number = told.get(name, "")
            if _RANK.fullmatch(number) and (name == "rank" or rank is None):
                own = name == "local_rank" and source.rank is not None
                rank = source.rank if own else int(number)
        rank = source.rank if rank is None else rank
        # A file that the run's folder attributes to a node knows better than a host's own name.
        node = source.node or told.get("node") or self.head.node or self.boxed_node
        if rank is None and not node and _KERNEL.match(self.text) is not None:
            node = self._within.section_node(self.start)
        if rank is None and not node and (entry := self.summary_entry) is not None:
            return replace(source, rank=int(entry["rank"]), node=entry["node"])
        return replace(source, rank=rank, node=node)


def _best_clue(line: _Line, signs: Sequence[tuple[_Owner, Sign]]) -> Clue | None:
    """By the most specific rule that knows this line, if any does."""
    ends = line.raised if line.raised is not None and line.start == line.raised.line else None
    if ends is not None and (ends.ignored or ends.leaves):
        return None
    rules = [(rule, sign) for rule, sign in signs if isinstance(rule, Rule)]
    for rule, sign in sorted(rules, key=lambda pair: -pair[0].weight):
        if rule is _EXCEPTION and line.raised is not None:
            continue  # what a traceback ends with is known from the traceback
        if (told := _sign_captures(sign, line)) is not None:
            return _make_clue(rule, line, told, sign.confidence)
    if ends is None:
        return None
    rule = _INTERRUPT if ends.name == "KeyboardInterrupt" else _EXCEPTION
    if rule is _EXCEPTION and SAYS_NOTHING.search(ends.message):
        rule = _SILENT
    return _make_clue(rule, line, {"detail": ends.text[:MAX_DETAIL]}, None)


def _make_clue(
    rule: Rule, line: _Line, told: dict[str, str], confidence: Confidence | None
) -> Clue:
    return Clue(
        rule=rule,
        source=line.writer(told),
        writer=line.writer({}),
        line=line.number,
        text=line.shown,
        captures=told,
        at=line.at,
        mild=line.head.mild or line.is_survived or line.is_caught(rule),
        handled=line.raised is not None and line.raised.handled,
        thrown=line.raised is not None,
        confidence=confidence,
    )


def _as_it_ended(clue: Clue, line: _Line, text: Stretch) -> Clue:
    """A line after which its writer trained on is no more than a warning, unless it tells how an
    exception ended, or of hardware.
    """
    if clue.rule.role is not LogRole.CAUSE or clue.mild or line.raised is not None:
        return clue
    writer = (line.head.node, line.head.rank)
    return replace(clue, mild=text.last_steps.get(writer, -1) > line.start)


def _find_remarks(line: _Line, signs: Sequence[tuple[_Owner, Sign]]) -> Iterator[Remark]:
    for kind, sign in signs:
        if isinstance(kind, str) and (told := _sign_captures(sign, line)) is not None:
            yield Remark(
                kind=kind,
                source=line.writer(told),
                line=line.number,
                text=line.shown,
                told=told,
                at=line.at,
            )


def _sign_captures(sign: Sign, line: _Line) -> dict[str, str] | None:
    """What the sign's groups caught; None if the line is another one."""
    text = line.own_words
    if sign.text not in text or (sign.frames and not sign.frames.search(line.frames)):
        return None
    told = dict(sign.fills)
    if sign.pattern is not None:
        match = sign.pattern.search(text)
        if match is None:
            return None
        told |= _named_groups(match)
    if sign.around is not None:
        near = sign.around.search(line.around) or sign.around.search(line.around_alone)
        if near is None:
            return None
        told = {**_named_groups(near), **told}
    return told


def _named_groups(match: re.Match[str]) -> dict[str, str]:
    return {name: caught for name, caught in match.groupdict().items() if caught is not None}
