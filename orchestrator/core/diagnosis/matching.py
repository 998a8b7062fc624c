"""What rules find in one stretch of a log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from orchestrator.core.diagnosis.diagnosis_model import SHOWN_LINE, Clue, LogSource, Rule, Sign
from orchestrator.core.diagnosis.line_prefixes import last_time, read_head, read_time
from orchestrator.core.diagnosis.observations import OBSERVED, Remark
from orchestrator.core.diagnosis.rules import RULES

BEFORE, AFTER = 1500, 4000  # of a very long line, what is looked at around a sign
LOOK_BACK = 4096  # characters in which the time of a line without one is looked for
_LINE_ENDS = re.compile(r"[\r\n]")


def _by_text() -> dict[str, tuple[tuple[Rule | str, Sign], ...]]:
    """Signs by the text that they need: most stretches of a log hold none of these."""
    found: dict[str, list[tuple[Rule | str, Sign]]] = {}
    for rule in RULES:
        for sign in rule.signs:
            found.setdefault(sign.text, []).append((rule, sign))
    for kind, sign in OBSERVED.items():
        found.setdefault(sign.text, []).append((kind, sign))
    return {text: tuple(signs) for text, signs in found.items()}


_BY_TEXT = _by_text()
_RANK = re.compile(r"[0-9]{1,9}")
_FRAME = re.compile(r'File "[^"\n]{1,400}", line \d{1,7}')


@dataclass(frozen=True, slots=True)
class Found:
    """What a stretch holds: clues, at most one a line, and remarks."""

    clues: tuple[Clue, ...]
    remarks: tuple[Remark, ...]


def examine(
    stretch: str, source: LogSource, *, first_line: int = 1, at: float | None = None
) -> Found:
    """Every line of ``stretch`` that a rule knows. Its first line is number ``first_line`` of
    ``source``; ``at`` is the last time that was read before it.
    """
    clues: list[Clue] = []
    remarks: list[Remark] = []
    number, counted = first_line, 0
    for start, signs in sorted(_hits(stretch).items()):
        number += stretch.count("\n", counted, start)
        counted = start
        line = stretch[start : _end(stretch, start)]
        if _is_quoted(stretch, start):
            continue
        place = _Place(source, number)
        found = [*_best_clue(line, signs, place), *_remarks(line, signs, place)]
        if found:
            when = _time(stretch, start, line, at)
            clues += [replace(item, at=when) for item in found if isinstance(item, Clue)]
            remarks += [replace(item, at=when) for item in found if isinstance(item, Remark)]
    return Found(tuple(clues), tuple(remarks))


def _is_quoted(stretch: str, start: int) -> bool:
    """Whether the line is program text that a traceback shows: what it says did not happen.

    It stands deeper than the frame above it. Frames of ``-c``, of extensions and of frozen modules
    show no text; what follows them at once may be the exception itself.
    """
    before = stretch[max(0, start - LOOK_BACK) : max(0, start - 1)]
    frame = _FRAME.search(before, before.rfind("\n") + 1)
    if frame is None:
        return False
    column = frame.start() - before.rfind("\n") - 1
    return stretch[start + column : start + column + 2].isspace()


@dataclass(frozen=True, slots=True)
class _Place:
    source: LogSource
    number: int


def _time(stretch: str, start: int, line: str, before: float | None) -> float | None:
    """The line's own time, else that of the last line before it which has one."""
    if (own := read_time(line)) is not None:
        return own
    earlier = last_time(stretch[max(0, start - LOOK_BACK) : start])
    return before if earlier is None else earlier


def _hits(stretch: str) -> dict[int, list[tuple[Rule | str, Sign]]]:
    """Where lines begin that hold the text of a sign, with those signs."""
    found: dict[int, list[tuple[Rule | str, Sign]]] = {}
    for text, signs in _BY_TEXT.items():
        position = stretch.find(text)
        while position >= 0:
            start = _start(stretch, position)
            found.setdefault(start, []).extend(signs)
            position = stretch.find(text, _end(stretch, position))
    return found


def _start(stretch: str, position: int) -> int:
    """Where the line begins; a line without end is looked at around the sign only."""
    least = max(0, position - BEFORE)
    end = max(stretch.rfind("\n", least, position), stretch.rfind("\r", least, position))
    return end + 1 if end >= 0 else least


def _end(stretch: str, position: int) -> int:
    most = position + AFTER
    match = _LINE_ENDS.search(stretch, position, most)
    return match.start() if match is not None else min(most, len(stretch))


def _best_clue(line: str, signs: list[tuple[Rule | str, Sign]], place: _Place) -> Iterator[Clue]:
    """By the most specific rule that knows this line, if any does."""
    head = read_head(line)
    rules = [(rule, sign) for rule, sign in signs if isinstance(rule, Rule)]
    for rule, sign in sorted(rules, key=lambda pair: -pair[0].weight):
        if (told := _captures(sign, head.text)) is not None:
            writer = _writer(place.source, head.node, head.rank, told)
            text = line[:SHOWN_LINE].strip()
            yield Clue(rule=rule, source=writer, line=place.number, text=text, captures=told)
            return


def _remarks(line: str, signs: list[tuple[Rule | str, Sign]], place: _Place) -> Iterator[Remark]:
    head = read_head(line)
    for kind, sign in signs:
        if isinstance(kind, str) and (told := _captures(sign, head.text)) is not None:
            writer = _writer(place.source, head.node, head.rank, told)
            text = line[:SHOWN_LINE].strip()
            yield Remark(kind=kind, source=writer, line=place.number, text=text, told=told)


def _captures(sign: Sign, text: str) -> dict[str, str] | None:
    """What the sign's groups caught; None if the line is another one."""
    if sign.pattern is None:
        return {} if sign.text in text else None
    match = sign.pattern.search(text)
    if match is None:
        return None
    return {name: caught for name, caught in match.groupdict().items() if caught is not None}


def _writer(source: LogSource, node: str, rank: int | None, told: dict[str, str]) -> LogSource:
    """Whom the line is about: as the line says, else its prefix, else the file's name."""
    for name in ("rank", "local_rank"):
        number = told.get(name, "")
        if _RANK.fullmatch(number) and (name == "rank" or rank is None):
            rank = source.rank if name == "local_rank" and source.rank is not None else int(number)
    rank = source.rank if rank is None else rank
    # A file that the run's folder attributes to a node knows better than a host's own name.
    return replace(source, rank=rank, node=source.node or told.get("node") or node)
