"""Who failed first, and why: from all clues to one diagnosis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from orchestrator.core.base.outcome import describe_outcome, has_succeeded
from orchestrator.core.diagnosis.blamable import (
    with_explanations,
    without_cancelled,
    without_explained,
    without_idle_versions,
    without_later_mismatch,
    without_old_hardware,
    without_outlived,
    without_survived,
)
from orchestrator.core.diagnosis.diagnosis_model import (
    Clue,
    Confidence,
    Domain,
    End,
    Evidence,
    Findings,
    LogRole,
    LogSource,
)
from orchestrator.core.diagnosis.line_times import over_new_year
from orchestrator.core.diagnosis.named_cause import attribute_clue, complete_clue, make_diagnosis
from orchestrator.core.diagnosis.observations import (
    Remark,
    Tails,
    compare_remarks,
    find_good_ends,
    find_proven_end,
    without_ended_tasks,
)
from orchestrator.core.diagnosis.rules import RULES
from orchestrator.core.run.state import CLOCK_ERROR_S

_Key = tuple[str, str, int | None]


def find_first_cause(
    clues: Sequence[Clue],
    *,
    remarks: Sequence[Remark] = (),
    ends: Sequence[End] = (),
    sources: Sequence[LogSource] = (),
    telling: Sequence[Evidence] = (),
    tails: Tails = MappingProxyType({}),
) -> Findings:
    """The first cause among ``clues``, in whatever order they come.

    ``ends`` are ranks that failed by themselves, in their order; ``sources`` everybody whose log
    was read; ``telling`` what to show when no rule knows anything, or only who ended first;
    ``tails`` the last lines of each log, with their numbers.
    """
    every = [*without_ended_tasks(clues, remarks), *compare_remarks(remarks), *_from_ends(ends)]
    every = _comparable_times([replace(clue, order=n) for n, clue in enumerate(every)])
    read, every = every, with_explanations(without_idle_versions(without_later_mismatch(every)))
    # What costs speed explains no rank that failed.
    innocent = {LogRole.HARMLESS, LogRole.SLOW} if ends else {LogRole.HARMLESS}
    blamed = without_explained([clue for clue in every if clue.role not in innocent])
    harmless = sorted({clue.rule.id for clue in every if clue.role is LogRole.HARMLESS})
    if not ends:
        blamed = without_survived(blamed, find_good_ends(remarks))
    blamed = without_cancelled(without_old_hardware(without_outlived(blamed, remarks)))
    if not blamed:
        well = None if ends else find_proven_end(remarks, tails)
        shown = () if well else tuple(telling)
        return Findings(diagnosis=None, telling=shown, harmless=tuple(harmless), ended_well=well)
    role = min(clue.role for clue in blamed)
    rivals = [clue for clue in blamed if clue.role is role]
    first, sure = _first_rival(rivals, ends)
    first = attribute_clue(complete_clue(first, blamed), read)
    found = make_diagnosis(first, sure, blamed, sources)
    open_end = role >= LogRole.VAGUE and found.confidence is Confidence.POSSIBLE
    others = [line for line in telling if line.place not in {e.place for e in found.evidence}]
    return Findings(
        diagnosis=found, telling=tuple(others) if open_end else (), harmless=tuple(harmless)
    )


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


# ---- order -------------------------------------------------------------------------------------


def _first_rival(rivals: Sequence[Clue], ends: Sequence[End]) -> tuple[Clue, bool]:
    """The earliest rival, and whether its being first is known rather than guessed."""
    order = {end.source.key: n for n, end in reversed(list(enumerate(ends)))}
    if all(clue.at is not None for clue in rivals):
        return _earliest_rival(rivals, order)
    heads = _first_of_each(rivals)
    # A rank that had not failed by itself when others had is none of the first.
    failed = {c.order for c in heads if c.source.key in order}
    heads = [c for c in heads if not failed or c.order in failed or c.source.rank is None]
    if failed and len(failed) == len(heads):
        return min(heads, key=lambda clue: (order[clue.source.key], *_rank_of_clue(clue))), True
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
    first = _before_in_file(first, rivals)
    return first, all(clue.rule.id == first.rule.id for clue in close)


def _before_in_file(first: Clue, rivals: Sequence[Clue]) -> Clue:
    """What its writer wrote above it in the same file, whatever the times say that stand between:
    they may be read from a program's output, but for the kernel's own.
    """
    if first.rule.domain is Domain.HARDWARE:
        return first
    same = [c for c in _first_of_each(rivals) if c.source == first.source and c.line < first.line]
    return min(same, key=lambda clue: clue.line, default=first)


def _ended_first(best: Clue, rivals: Sequence[Clue], order: Mapping[_Key, int]) -> Clue:
    """Of several that say the same, the one whose writer is known to have ended first."""
    alike = [c for c in rivals if c.rule.id == best.rule.id and c.source.key in order]
    return min(alike, key=lambda clue: order[clue.source.key], default=best)


def _first_of_each(rivals: Sequence[Clue]) -> list[Clue]:
    """Of each writer what it wrote first: the rest may well follow from that, but for hardware."""
    heads: dict[tuple[_Key, str, bool], Clue] = {}
    for clue in sorted(rivals, key=lambda clue: (clue.line, *_rank_of_clue(clue))):
        hardware = clue.rule.domain is Domain.HARDWARE
        heads.setdefault((clue.source.key, clue.source.name, hardware), clue)
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
