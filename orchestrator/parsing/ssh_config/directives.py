"""A file of ssh_config as directives, validated as a whole: ``ssh`` refuses a file for a bad line,
whichever host it is about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.core.base.errors import SourceLocation, UsageError
from orchestrator.parsing.ssh_config.criteria import Criterion, parse_match
from orchestrator.parsing.ssh_config.values import ALIASES, READERS, read_value
from orchestrator.parsing.ssh_config.words import BLANKS, UnbalancedQuotes, first_word, split_words

_AT_THE_END = BLANKS + "\f"


@dataclass(frozen=True, slots=True)
class Directive:
    """One line: the keyword in lower case, the words of its value, and where it stands.

    ``criteria`` are the conditions of a ``Match``.
    """

    keyword: str
    words: tuple[str, ...]
    place: SourceLocation
    criteria: tuple[Criterion, ...] = ()

    @property
    def text(self) -> str:
        """The value as one text."""
        return " ".join(self.words)


def parse_directives(text: str, file: str) -> Iterator[Directive]:
    """The directives of ``file``. Raises :class:`UsageError` at the first bad line."""
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            found = _parse_directive(line, SourceLocation(file, number))
        except UnbalancedQuotes:
            raise _bad_line("unbalanced quotes", file, number) from None
        except ValueError as error:
            raise _bad_line(
                _keyword_error(_split_keyword(line)[0], str(error)), file, number
            ) from None
        if found is not None:
            yield found


def _keyword_error(keyword: str, what: str) -> str:
    """The error behind its keyword; an unknown one is not shown, for the file may be anything."""
    known = {"match", *READERS, *ALIASES}
    return f"{keyword}: {what}" if keyword in known else what


def _bad_line(what: str, file: str, number: int) -> UsageError:
    return UsageError(
        what,
        id="OR-SSH-023",
        where=SourceLocation(file, number),
        why="ssh refuses the whole file for such a line, too",
        remedy="correct the line; 'ssh -G NAME' reads the same file",
    )


def _parse_directive(line: str, place: SourceLocation) -> Directive | None:
    keyword, rest = _split_keyword(line)
    if not keyword or keyword.startswith("#"):
        return None
    keyword = ALIASES.get(keyword, keyword)
    rest = rest.lstrip(BLANKS)
    if not rest:
        raise ValueError("the value is missing")
    if keyword == "match":
        split_words(rest)  # quotes must be balanced by this rule, too
        return Directive(keyword, (rest,), place, parse_match(rest))
    return Directive(keyword, read_value(keyword, rest), place)


def _split_keyword(line: str) -> tuple[str, str]:
    """The keyword as it counts, and what follows it. Raises :class:`UnbalancedQuotes`."""
    line = line.partition("\0")[0]
    keyword, rest = first_word(line[:1] + line[1:].rstrip(_AT_THE_END))
    if not keyword and rest:
        keyword, rest = first_word(rest)
    return keyword.lower(), rest or ""
