"""Who failed first, and why: from all clues to one diagnosis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from orchestrator.core.base.outcome import describe_outcome, has_succeeded
from orchestrator.core.diagnosis.diagnosis_model import (
    MAX_EVIDENCE,
    SHOWN_LINE,
    Advice,
    Clue,
    Confidence,
    Diagnosis,
    Domain,
    End,
    Evidence,
    Findings,
    LogRole,
    LogSource,
)
from orchestrator.core.diagnosis.line_times import over_new_year
from orchestrator.core.diagnosis.observations import (
    Remark,
    compare_remarks,
    find_good_ends,
    without_ended_tasks,
)
from orchestrator.core.diagnosis.rules import RULES
from orchestrator.core.run.state import CLOCK_ERROR_S

MAX_SHOWN = 3
# Ranks that can be told from others, so that a missing one is worth mentioning.
MIN_WAITING = 2

_SURENESS = (Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE)
_LOUD = (*"error fatal exception fail warn abort killed denied".split(), "timed out")
_WORTH_SAYING = (LogRole.CAUSE, LogRole.FAILURE, LogRole.CONDITION, LogRole.SLOW)

EXCEPTION = "PY-EXC-001"
REPORTED_END = "LAUNCH-EXIT-001"
_Key = tuple[str, str, int | None]


def find_first_cause(
    clues: Sequence[Clue],
    *,
    remarks: Sequence[Remark] = (),
    ends: Sequence[End] = (),
    sources: Sequence[LogSource] = (),
    telling: Sequence[Evidence] = (),
) -> Findings:
    """The first cause among ``clues``, in whatever order they come.

    ``ends`` are ranks that failed by themselves, in their order; ``sources`` everybody whose log
    was read; ``telling`` what to show when no rule knows anything, or only who ended first.
    """
    every = [*without_ended_tasks(clues, remarks), *compare_remarks(remarks), *_from_ends(ends)]
    every = _comparable_times([replace(clue, order=n) for n, clue in enumerate(every)])
    read, every = every, _with_explanations(every)
    # What costs speed explains no rank that failed.
    innocent = {LogRole.HARMLESS, LogRole.SLOW} if ends else {LogRole.HARMLESS}
    blamed = _without_explained([clue for clue in every if clue.role not in innocent])
    harmless = sorted({clue.rule.id for clue in every if clue.role is LogRole.HARMLESS})
    if not ends:
        blamed = _without_survived(blamed, find_good_ends(remarks))
    if not blamed:
        return Findings(diagnosis=None, telling=tuple(telling), harmless=tuple(harmless))
    role = min(clue.role for clue in blamed)
    rivals = [clue for clue in blamed if clue.role is role]
    first, sure = _first_rival(rivals, ends)
    first = _attribute_clue(_complete_clue(first, blamed), read)
    found = _make_diagnosis(first, sure, blamed, sources)
    open_end = role >= LogRole.VAGUE and found.confidence is Confidence.POSSIBLE
    others = [line for line in telling if line.place not in {e.place for e in found.evidence}]
    return Findings(
        diagnosis=found, telling=tuple(others) if open_end else (), harmless=tuple(harmless)
    )


def _with_explanations(clues: list[Clue]) -> list[Clue]:
    """Without what only follows from another rule's find, which thereby is known to matter."""
    found = {clue.rule.id for clue in clues}
    follows = {name for clue in clues for name in clue.rule.explains}
    return [
        replace(clue, explaining=not found.isdisjoint(clue.rule.explains))
        for clue in clues
        if clue.rule.id not in follows
    ]


def _without_explained(clues: list[Clue]) -> list[Clue]:
    """Not that a library failed without a reason or a process aborted, where the same writer tells
    before that whom it lost or waited for; a line without a rank may be any rank's of its node and
    file.
    """
    suffered: dict[tuple[str, object], int] = {}
    for clue in clues:
        if clue.role is LogRole.VICTIM:
            writer = clue.writer or clue.source
            for who in (_writer_key(writer), writer.node, None):
                key = (writer.name, who)
                suffered[key] = min(suffered.get(key, clue.line), clue.line)

    def is_explained(clue: Clue) -> bool:
        writer = clue.writer or clue.source
        who = _writer_key(writer) if writer.rank is not None else writer.node or None
        return suffered.get((writer.name, who), clue.line + 1) <= clue.line

    def is_open(clue: Clue) -> bool:
        return clue.role is LogRole.VAGUE or clue.rule.aftermath

    return [clue for clue in clues if not (is_open(clue) and is_explained(clue))]


def _without_survived(clues: list[Clue], ends: Mapping[str, int]) -> list[Clue]:
    """Not what a program met before it ended well (in these lines of logs), unless nothing but that
    explains what its launcher or others say after it.
    """

    def was_survived(clue: Clue) -> bool:
        before = 0 < clue.line < ends.get(clue.source.name, 0)
        return before and clue.rule.domain is not Domain.HARDWARE

    left = [clue for clue in clues if not was_survived(clue)]
    failed = any(clue.role <= LogRole.VICTIM for clue in left)
    known = any(clue.role <= LogRole.FAILURE for clue in left)
    return left if known or not failed else clues


def _from_ends(ends: Sequence[End]) -> Iterator[Clue]:
    for end in ends:
        for rule in RULES:
            if end.outcome in rule.endings and not has_succeeded(end.outcome):
                text = f"{end.source.who} {describe_outcome(end.outcome)}"
                yield Clue(rule=rule, source=end.source, line=0, text=text)


def _comparable_times(clues: list[Clue]) -> list[Clue]:
    """The same clues, with times that can be compared."""
    known = iter(over_new_year([clue.at for clue in clues if clue.at is not None]))
    return [c if c.at is None else replace(c, at=next(known)) for c in clues]


def _writer_key(source: LogSource) -> _Key:
    """A rank by its number, which is unique in a job; others by node and file."""
    return ("", "", source.rank) if source.rank is not None else (source.node, source.name, None)


# ---- order -------------------------------------------------------------------------------------


def _first_rival(rivals: Sequence[Clue], ends: Sequence[End]) -> tuple[Clue, bool]:
    """The earliest rival, and whether its being first is known rather than guessed."""
    order = {_writer_key(end.source): n for n, end in reversed(list(enumerate(ends)))}
    if all(clue.at is not None for clue in rivals):
        return _earliest_rival(rivals, order)
    heads = _first_of_each(rivals)
    # A rank that had not failed by itself when others had is none of the first.
    failed = {c.order for c in heads if _writer_key(c.source) in order}
    heads = [c for c in heads if not failed or c.order in failed or c.source.rank is None]
    if failed and len(failed) == len(heads):
        return min(
            heads, key=lambda clue: (order[_writer_key(clue.source)], *_rank_of_clue(clue))
        ), True
    one_file = len({clue.source.name for clue in rivals}) == 1
    standing = min(heads, key=_order_in_file if one_file else _rank_of_clue)
    best = _ended_first(standing, heads, order)
    return best, all(clue.rule.id == best.rule.id for clue in rivals)


def _earliest_rival(rivals: Sequence[Clue], order: Mapping[_Key, int]) -> tuple[Clue, bool]:
    """What was written within the same second as the first is told apart by what it says, and the
    same of several ranks by the ``order`` in which they failed.
    """
    begin = min(clue.at or 0.0 for clue in rivals)
    close = [clue for clue in rivals if (clue.at or 0.0) - begin <= CLOCK_ERROR_S]
    one_file = len({clue.source.name for clue in close}) == 1
    best = min(close, key=_order_in_file if one_file else _rank_of_clue)
    first = _ended_first(best, close, order)
    return first, all(clue.rule.id == first.rule.id for clue in close)


def _ended_first(best: Clue, rivals: Sequence[Clue], order: Mapping[_Key, int]) -> Clue:
    """Of several that say the same, the one whose writer is known to have ended first."""
    alike = [c for c in rivals if c.rule.id == best.rule.id and _writer_key(c.source) in order]
    return min(alike, key=lambda clue: order[_writer_key(clue.source)], default=best)


def _first_of_each(rivals: Sequence[Clue]) -> list[Clue]:
    """Of each writer what it wrote first: the rest may well follow from that, but for hardware."""
    heads: dict[tuple[_Key, str, bool], Clue] = {}
    for clue in sorted(rivals, key=lambda clue: (clue.line, *_rank_of_clue(clue))):
        hardware = clue.rule.domain is Domain.HARDWARE
        heads.setdefault((_writer_key(clue.source), clue.source.name, hardware), clue)
    return list(heads.values())


def _order_in_file(clue: Clue) -> tuple[bool, int]:
    """In one file what was written first; but no program breaks hardware."""
    return clue.rule.domain is not Domain.HARDWARE, clue.line


def _rank_of_clue(clue: Clue) -> tuple[int, int, bool, float, int, str, int, str]:
    """Near to the metal first, then the specific, then who is known by rank; of those who only
    suffered, who knows most. The rest makes the order a total one.
    """
    rule, source = clue.rule, clue.source
    near = int(rule.domain) if clue.role < LogRole.VAGUE else 0
    unknown, rank = source.rank is None, source.rank or 0
    at = clue.at or 0.0
    return (near, -rule.weight, unknown, at, rank, source.name, clue.line, rule.id)


# ---- the verdict -------------------------------------------------------------------------------


def _make_diagnosis(
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


def _complete_clue(first: Clue, clues: Sequence[Clue]) -> Clue:
    """What the line leaves out or does not prove, another line of the same writer may."""
    told: dict[str, str] = {}
    surest = first
    for clue in clues:
        if clue.rule.id == first.rule.id and _writer_key(clue.source) == _writer_key(first.source):
            told = {**clue.captures, **told}
            surest = min(surest, clue, key=lambda each: _SURENESS.index(each.sure))
    whole = replace(first, captures={**told, **first.captures})
    if surest is first:
        return whole
    return replace(whole, confidence=surest.sure, mild=first.mild and surest.mild, handled=False)


def _attribute_clue(first: Clue, clues: Sequence[Clue]) -> Clue:
    """A line of nobody in particular is about whom another line of its file names that tells the
    same, or what follows from it, if all such lines name the same; else about the one process whose
    end its launcher reports. Where only the rank is unknown, the node is kept.
    """
    if first.source.rank is not None:
        return first
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
    same = _writer_key(clue.source) == _writer_key(first.source)
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
        found.setdefault(_writer_key(clue.source), clue)
    return found


def _list_evidence(first: Clue, clues: Sequence[Clue]) -> Iterator[Evidence]:
    """The line itself, the same from others, then what it led to: at most five."""
    same = [clue for clue in clues if clue.rule.id == first.rule.id and clue.order != first.order]
    others = [clue for clue in clues if clue.rule.id != first.rule.id and _bears_on(clue)]
    others.sort(key=lambda clue: (clue.role, clue.order))
    follow = list(
        _first_by_writer(
            [clue for clue in same if _writer_key(clue.source) != _writer_key(first.source)]
        ).values()
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
    others = [
        c
        for c in clues
        if c.rule.consequence and _writer_key(c.source) != _writer_key(first.source)
    ]
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
