"""Which lines of a text hold the words of a sign, found without asking for each sign anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from orchestrator.core.diagnosis.model import Sign

T = TypeVar("T")

BEFORE, AFTER = 1500, 4000  # of a very long line, what is looked at around a sign
_LINE_ENDS = re.compile(r"[\r\n]")
# Parts that many signs share, the rarer in healthy logs first: a line without any of these and
# without the whole text of a sign that has none of them is not looked at.
COMMON: tuple[str, ...] = ()


class SignTable(Generic[T]):
    """Signs and what they belong to, by their texts."""

    def __init__(self, signs: Sequence[tuple[T, Sign]]) -> None:
        by_text: dict[str, list[tuple[T, Sign]]] = {}
        for owner, sign in signs:
            by_text.setdefault(sign.text, []).append((owner, sign))
        self._by_part: dict[str, list[tuple[str, list[tuple[T, Sign]]]]] = {}
        for text, owned in by_text.items():
            part = next((part for part in COMMON if part in text), text)
            self._by_part.setdefault(part, []).append((text, owned))

    def find(self, text: str, begin: int = 0) -> dict[int, list[tuple[T, Sign]]]:
        """Where lines begin that hold the text of a sign, with those signs; from ``begin`` on."""
        found: dict[int, list[tuple[T, Sign]]] = {}
        for part, group in self._by_part.items():
            for start, end in _lines_with(text, part, begin):
                signs = [
                    each
                    for words, owned in group
                    if text.find(words, start, end) >= 0
                    for each in owned
                ]
                if signs:
                    found.setdefault(start, []).extend(signs)
        return found


def _lines_with(text: str, part: str, begin: int) -> Iterator[tuple[int, int]]:
    """Beginning and end of each line that holds ``part``."""
    position = text.find(part, begin)
    while position >= 0:
        start = line_start(text, position)
        end = line_end(text, position)
        yield start, end
        position = text.find(part, end)


def line_start(text: str, position: int) -> int:
    """Where the line begins; a line without end is looked at around the sign only."""
    least = max(0, position - BEFORE)
    end = max(text.rfind("\n", least, position), text.rfind("\r", least, position))
    return end + 1 if end >= 0 else least


def line_end(text: str, position: int) -> int:
    """Where the line ends, or is not looked at any more."""
    most = position + AFTER
    match = _LINE_ENDS.search(text, position, most)
    return match.start() if match is not None else min(most, len(text))
