"""Which lines of a text hold the words of a sign, found without asking for each sign anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from orchestrator.core.diagnosis.diagnosis_model import Sign

T = TypeVar("T")

BEFORE, AFTER = 1500, 4000  # of a very long line, what is looked at around a sign
_LINE_ENDS = re.compile(r"[\r\n]")
# Parts that many signs share, the rarer ones in healthy logs first. A text is searched for each of
# them once, and for the signs that share it only in the lines that hold it. They make it fast and
# decide nothing: a sign without any of them is searched for as it stands.
COMMON = (
    *("annot", "nvalid", "ismatch", "atchdog", "xpected", "xceed", "ignal", "CUDA", "_STATUS_"),
    *(
        "DUE TO",
        "No ",
        "Too ",
        "must ",
        "timed out",
        "not ",
        "has ",
        "SIG",
        "nvcc",
        "ninja",
        "ould",
    ),
    *("ound", "iled", "rror", "lled", "kill", "able", "code", "cess", "out of ", "emory", "wait"),
    *("port", "icat", "ermi", "ction", "status", "host", "are ", "name", "tore", "read", "is "),
)


class SignTable(Generic[T]):
    """Signs and what they belong to, by their texts."""

    def __init__(self, signs: Sequence[tuple[T, Sign]]) -> None:
        self._signs = signs
        by_text: dict[str, list[int]] = {}
        for n, (_, sign) in enumerate(signs):
            by_text.setdefault(sign.text, []).append(n)
        self._by_part: dict[str, list[tuple[str, list[int]]]] = {}
        for text, owned in by_text.items():
            part = next((part for part in COMMON if part in text), text)
            self._by_part.setdefault(part, []).append((text, owned))

    def find(self, text: str, begin: int = 0) -> dict[int, list[tuple[T, Sign]]]:
        """Where lines begin that hold the text of a sign, with those signs in their order; from
        ``begin`` on.
        """
        found: dict[int, list[int]] = {}
        for part, group in self._by_part.items():
            for start, end in _lines_with(text, part, begin):
                line = text[start:end]
                for words, owned in group:
                    if words in line:
                        found.setdefault(start, []).extend(owned)
        return {start: [self._signs[n] for n in sorted(some)] for start, some in found.items()}


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
