"""A diagnosis for people: the cause, the lines that show it, what followed, what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.core.diagnosis.diagnosis_model import Diagnosis, Evidence, FindingKind, Findings
from orchestrator.view.terminal.terminal import BOLD, RED, YELLOW, paint_text
from orchestrator.view.terminal.text import brief_text, count_noun

WIDTH = 240
# What is not told of a cause that the logs do not hold, or where nothing failed.
_LIMITS = {
    FindingKind.SYMPTOM: "why it came to that is not in these logs",
    FindingKind.SPEED: "no failure is in these logs; this costs speed",
}


def findings_text(findings: Findings, read: str, *, color: bool = False) -> list[str]:
    """The first cause, or that no rule matched in what was ``read`` (see :func:`read_text`)."""
    found = findings.diagnosis
    lines = list(_cause(found, color) if found else [_unknown(read, color)])
    if findings.ended_well is not None:
        lines += [f"  the log ends well: {line.strip()}" for line in _lines((findings.ended_well,))]
    if findings.telling:
        lines += ["  last lines that may say it:", *_lines(findings.telling)]
    lines += [f"  benign: {rule}" for rule in findings.harmless]
    return lines


def read_text(logs: Sequence[str], lines: int) -> str:
    """What was read: ``standard input, 3 lines``, ``8 logs, 4711 lines``."""
    which = brief_text(logs[0], WIDTH) if len(logs) == 1 else count_noun(len(logs), "log")
    return f"{which}, {count_noun(lines, 'line')}"


def _cause(found: Diagnosis, color: bool) -> Iterator[str]:
    title = f"{brief_text(found.title)} ({found.id}, {found.confidence.value})"
    yield paint_text(title, RED + BOLD, color=color)
    yield f"  {brief_text(found.cause, 2 * WIDTH)}"
    if found.kind in _LIMITS:
        yield f"  {_LIMITS[found.kind]}"
    yield from _lines(found.evidence)
    yield from (f"  then: {brief_text(what, WIDTH)}" for what in found.consequences)
    yield from (f"  or: {brief_text(what, WIDTH)}" for what in found.alternatives)
    more = [what for what in found.besides if what not in found.alternatives]
    yield from (f"  also: {brief_text(what, WIDTH)}" for what in more)
    word = "next" if found.kind is FindingKind.SYMPTOM else "remedy"
    yield f"  {word}: {brief_text(found.remedy, 2 * WIDTH)}"
    if found.references:
        yield f"  see: {brief_text(', '.join(found.references), WIDTH)}"


def _unknown(read: str, color: bool) -> str:
    return paint_text(f"no known failure pattern matched (read: {read})", YELLOW, color=color)


def _lines(evidence: tuple[Evidence, ...]) -> Iterator[str]:
    for line in evidence:
        yield f"  {brief_text(line.place, 120)}: {brief_text(line.text, WIDTH)}"
