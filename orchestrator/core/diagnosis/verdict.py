"""What is said of the first cause: whom it is about, how sure it is, what shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from orchestrator.core.diagnosis.diagnosis_model import (
    MAX_EVIDENCE,
    SHOWN_LINE,
    Advice,
    Clue,
    Confidence,
    Diagnosis,
    Evidence,
    LogRole,
    LogSource,
)

MAX_SHOWN = 3
# Ranks that can be told from others, so that a missing one is worth mentioning.
MIN_WAITING = 2
EXCEPTION = "PY-EXC-001"
REPORTED_END = "LAUNCH-EXIT-001"

_SURENESS = (Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE)
_LOUD = (*"error fatal exception fail warn abort killed denied".split(), "timed out")
_WORTH_SAYING = (LogRole.CAUSE, LogRole.FAILURE, LogRole.CONDITION, LogRole.SLOW)
_Key = tuple[str, str, int | None]


def make_diagnosis(
    first: Clue, sure: bool, clues: Sequence[Clue], sources: Sequence[LogSource]
) -> Diagnosis:
    rule, source = first.rule, first.source
    alike = {clue.source.rank for clue in clues if clue.rule.id == rule.id} - {None}
    shared = (f"{len(alike)} ranks say the same",) if len(alike) > 1 and not first.joint else ()
    confidence = _judge_confidence(first, sure, clues)
    # Only what is as near to the end as the first may have been first instead.
    open_to = () if confidence is Confidence.CERTAIN else {first.role}
    rivals = [clue for clue in clues if clue.role in open_to]
    return Diagnosis(
        id=rule.id,
        title=rule.title,
        confidence=confidence,
        cause=_cause_sentence(first),
        remedy=_fill_template(rule.remedy, first),
        advice=rule.advice,
        node=source.node or None,
        rank=source.rank,
        who=source.who,
        evidence=tuple(_list_evidence(first, clues)),
        consequences=tuple(_list_consequences(first, clues, sources)),
        besides=(*shared, *_other_findings(first, clues)),
        references=rule.references,
        alternatives=tuple(_other_findings(first, rivals)),
        kind=first.role.kind,
    )


def complete_clue(first: Clue, clues: Sequence[Clue]) -> Clue:
    """What the line leaves out or does not prove, another line of the same writer may."""
    told: dict[str, str] = {}
    surest = first
    for clue in clues:
        if clue.rule.id == first.rule.id and clue.source.key == first.source.key:
            told = {**clue.captures, **told}
            surest = min(surest, clue, key=lambda each: _SURENESS.index(each.sure))
    whole = replace(first, captures={**told, **first.captures})
    if surest is first:
        return whole
    return replace(whole, confidence=surest.sure, mild=first.mild and surest.mild, handled=False)


def attribute_clue(first: Clue, clues: Sequence[Clue]) -> Clue:
    """A line of nobody in particular is about whom another line of its file names that tells the
    same, or what follows from it, if all such lines name the same; else about the one process whose
    end its launcher reports. Where only the rank is unknown, the node is kept.
    """
    if first.source.rank is not None:
        return replace(first, source=_with_node(first.source, clues))
    told = {first.rule.id, *first.rule.explains}
    if not first.source.node and first.rule.id not in {c.rule.id for c in clues if c.source.node}:
        told.add(REPORTED_END)
    alike = [c.source for c in clues if c.rule.id in told and c.source != first.source]
    named = {source for source in alike if source.name == first.source.name}
    if len(named) != 1:
        return first
    (source,) = named
    node = source.node or first.source.node
    if first.source.node not in ("", node):
        return first
    return replace(first, source=replace(source, node=node))


def _with_node(source: LogSource, clues: Sequence[Clue]) -> LogSource:
    """The node of a rank, as any other line of its file tells it of the same rank."""
    same = (c.source for c in clues if (c.source.name, c.source.rank) == (source.name, source.rank))
    nodes = {each.node for each in same if each.node}
    return replace(source, node=nodes.pop()) if not source.node and len(nodes) == 1 else source


def _judge_confidence(first: Clue, sure: bool, clues: Sequence[Clue]) -> Confidence:
    # What may matter explains nothing where nobody suffered.
    matters = first.role is LogRole.CONDITION and first.rule.advice is not Advice.GO_ON
    if matters and not any(clue.rule.consequence for clue in clues):
        return Confidence.POSSIBLE
    sure = sure and not any(_raised_later(clue, first) for clue in clues)
    return first.sure if sure else first.sure.lower()


def _raised_later(clue: Clue, first: Clue) -> bool:
    """Whether the writer of ``first`` came to its end by an exception of which no rule knows more,
    and which may have another cause.
    """
    same = clue.source.key == first.source.key
    later = clue.source.name == first.source.name and clue.line > first.line
    return same and later and clue.rule.id == EXCEPTION and not (clue.mild or clue.handled)


def _cause_sentence(clue: Clue) -> str:
    return _fill_template(clue.rule.cause, clue)


def _fill_template(template: str, clue: Clue) -> str:
    whom = {"who": clue.source.who, "where": clue.source.where}
    values = {**clue.rule.defaults, **clue.captures, **whom}
    return template.format_map(values)


def _first_by_writer(clues: Sequence[Clue]) -> dict[_Key, Clue]:
    """The first clue of each rank, or file that is no rank's."""
    found: dict[_Key, Clue] = {}
    for clue in clues:
        found.setdefault(clue.source.key, clue)
    return found


def _list_evidence(first: Clue, clues: Sequence[Clue]) -> Iterator[Evidence]:
    """The line itself, the same from others, then what it led to: at most five."""
    same = [clue for clue in clues if clue.rule.id == first.rule.id and clue.order != first.order]
    others = [clue for clue in clues if clue.rule.id != first.rule.id and _bears_on(clue)]
    others.sort(key=lambda clue: (clue.role, clue.order))
    follow = list(
        _first_by_writer([clue for clue in same if clue.source.key != first.source.key]).values()
    )
    chosen = [first, *follow[:2], *_first_by_writer(others).values()]
    for clue in chosen[:MAX_EVIDENCE]:
        yield Evidence(file=clue.source.name, line=clue.line, text=clue.text[:SHOWN_LINE])


def _bears_on(clue: Clue) -> bool:
    """Whether a line belongs beside the first cause: warnings of the start do not, nor does what
    was written because everybody was told to end.
    """
    aside = clue.role is LogRole.CONDITION and clue.rule.advice is Advice.GO_ON
    return clue.role < LogRole.STOPPED and not clue.mild and not aside


def _list_consequences(
    first: Clue, clues: Sequence[Clue], sources: Sequence[LogSource]
) -> Iterator[str]:
    """``7 ranks timed out waiting``; each rank counts once."""
    others = [c for c in clues if c.rule.consequence and c.source.key != first.source.key]
    suffered = _first_by_writer(others)
    known = first.source.rank is not None
    counts = Counter(
        (c.rule.consequence, c.source.rank is not None)
        for c in suffered.values()
        if c.source.rank is not None or not known
    )
    for (consequence, ranked), count in counts.most_common(MAX_SHOWN):
        noun = "rank" if ranked else "log"
        yield f"{count} {noun if count == 1 else noun + 's'} {_in_number(consequence, count)}"
    if first.role in {LogRole.VICTIM, LogRole.STOPPED}:
        yield from _absent_writers(first, clues, sources)


def _in_number(consequence: str, count: int) -> str:
    return consequence.replace("were ", "was ", 1) if count == 1 else consequence


def _absent_writers(
    first: Clue, clues: Sequence[Clue], sources: Sequence[LogSource]
) -> Iterator[str]:
    """Where all wait, who does not wait may be the one that is waited for."""
    wait = {clue.source.rank for clue in clues if clue.rule.consequence == first.rule.consequence}
    silent = sorted({s.rank for s in sources if s.rank is not None and s.rank not in wait})
    if len(wait) >= MIN_WAITING and silent and len(silent) <= MAX_SHOWN:
        names = ", ".join(map(str, silent))
        noun = "rank" if len(silent) == 1 else "ranks"
        yield f"{noun} {names} did not: look there first"


def _other_findings(first: Clue, clues: Sequence[Clue]) -> Iterator[str]:
    """Other things that are wrong, and explain less."""
    seen = {first.rule.id}
    for clue in sorted(clues, key=lambda clue: (clue.role, clue.order)):
        if clue.rule.id not in seen and clue.role in _WORTH_SAYING:
            seen.add(clue.rule.id)
            if len(seen) - 1 <= MAX_SHOWN:
                yield f"{clue.rule.id}: {_cause_sentence(clue)}"


def telling_lines(tails: Mapping[str, Sequence[tuple[int, str]]]) -> list[Evidence]:
    """The last lines of logs that sound like an end: errors first, else the very last ones."""
    every = [
        Evidence(file=name, line=number, text=text.strip()[:SHOWN_LINE])
        for name, lines in tails.items()
        for number, text in lines
        if text.strip()
    ]
    loud = [e for e in every if any(word in e.text.lower() for word in _LOUD)]
    return (loud or every)[-MAX_EVIDENCE:]
