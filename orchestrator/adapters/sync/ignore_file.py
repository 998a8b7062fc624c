"""Ignore files: what a line means, and which line decides on a path, as in git.

The last line that matches decides; ``!`` takes back what earlier lines left out. A line with a
slash before its end is matched against the whole path below the ignore file's folder, any other
against the name alone; with a slash at its end only folders match. What lies in a folder that is
left out is not asked about: that is the business of whoever walks the tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.adapters.sync.wildmatch import NeverMatches, compile_pattern
from orchestrator.core.base.errors import UsageError

MAX_IGNORE_BYTES = 1024 * 1024
MAX_RULE_BYTES = 4096
_BOM = b"\xef\xbb\xbf"
_NOTHING = re.compile(rb"(?!)")
_PLAIN = re.compile(rb"(?:[^*?\[\\]|\\.)*", re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_SPECIAL = re.compile(r"([*?\[\\])")


@dataclass(frozen=True, slots=True)
class IgnoreRule:
    """One line. ``source`` and ``line`` say where it stands; ``pattern`` lacks ``!`` and the last
    ``/``. ``fault`` is why it can match nothing, or ``""``.
    """

    source: str
    line: int
    text: str
    pattern: bytes
    negative: bool
    folders_only: bool
    expression: bytes
    fault: str = ""

    @property
    def by_name(self) -> bool:
        """Whether it is matched against the last part of a path."""
        return b"/" not in self.pattern

    @property
    def literal(self) -> str:
        """The path that it names, if it has no wildcard; else ``""``."""
        spelled, wild = self._spelled()
        return "" if wild else spelled

    @property
    def literal_folder(self) -> str:
        """The folder that is written out before its first wildcard or its last name."""
        return self._spelled()[0].rpartition("/")[0]

    def names(self, name: str) -> bool:
        """Whether ``name`` is one of the parts of its path, to the letter."""
        return name in _unescape_pattern(self.pattern).split("/")

    def _spelled(self) -> tuple[str, bytes]:
        """What is written out, and the rest from its first wildcard on."""
        plain = _PLAIN.match(self.pattern)
        end = plain.end() if plain else 0
        return _unescape_pattern(self.pattern[:end]).lstrip("/"), self.pattern[end:]

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.text}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class RuleList:
    """The rules of one file. ``base`` is its folder relative to the tree, ``""`` or ``a/b/``; for a
    file above the tree, ``lead`` is the tree relative to the file's folder.
    """

    rules: tuple[IgnoreRule, ...]
    base: str = ""
    lead: str = ""
    _matchers: dict[bool, tuple[_Matcher, _Matcher]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __bool__(self) -> bool:
        return bool(self.rules)

    def last_match(self, path: str, *, is_folder: bool) -> IgnoreRule | None:
        """The rule that decides on ``path`` (no ``/`` at its end), which lies below ``base``."""
        matchers = self._matchers.get(is_folder)
        if matchers is None:
            matchers = self._matchers[is_folder] = self._compiled(is_folder)
        below = (self.lead + path[len(self.base) :]).encode(errors="surrogateescape")
        by_name, by_path = matchers
        found = max(by_name.last(below.rpartition(b"/")[2]), by_path.last(below))
        return None if found < 0 else self.rules[found]

    def _compiled(self, is_folder: bool) -> tuple[_Matcher, _Matcher]:
        usable = [
            (index, rule)
            for index, rule in enumerate(self.rules)
            if not rule.fault and (is_folder or not rule.folders_only)
        ]
        return (
            _Matcher.of((index, rule.expression) for index, rule in usable if rule.by_name),
            _Matcher.of((index, rule.expression) for index, rule in usable if not rule.by_name),
        )


@dataclass(frozen=True, slots=True)
class _Matcher:
    """Many expressions as one. ``numbers`` of those, the last one first."""

    pattern: re.Pattern[bytes]
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, numbered: Iterable[tuple[int, bytes]]) -> _Matcher:
        latest = sorted(numbered, reverse=True)
        joined = b"|".join(b"(" + text + b")" for _, text in latest)
        pattern = re.compile(joined, re.DOTALL) if latest else _NOTHING
        return cls(pattern, tuple(number for number, _ in latest))

    def last(self, text: bytes) -> int:
        """The highest number whose expression matches; -1 if none does."""
        found = self.pattern.match(text)
        return -1 if found is None or found.lastindex is None else self.numbers[found.lastindex - 1]


def read_rules(
    path: Path, source: str, *, base: str = "", lead: str = "", follow: bool = False
) -> RuleList:
    """The rules in the file ``path``; none if there is no such regular file.

    A link is read only if ``follow`` is set, for git reads none. Raises ``UsageError`` for a file
    that is too large, ``OSError``.
    """
    if not path.is_file() or (path.is_symlink() and not follow):
        return RuleList(())
    with path.open("rb") as file:
        data = file.read(MAX_IGNORE_BYTES + 1)
    if len(data) > MAX_IGNORE_BYTES:
        raise _refused_file(f"an ignore file larger than {MAX_IGNORE_BYTES >> 10} KiB", str(path))
    return RuleList(parse_rules(data, source), base, lead)


def parse_rules(data: bytes, source: str) -> tuple[IgnoreRule, ...]:
    """The rules in ``data``, lines of which ``source`` is the file. Raises ``UsageError``."""
    lines = data.removeprefix(_BOM).split(b"\n")
    rules = []
    for number, line in enumerate(lines, start=1):
        # As in C: a line ends at its first NUL.
        text = _without_blanks(line.removesuffix(b"\r").partition(b"\0")[0])
        if line and not line.startswith(b"#") and text:
            rules.append(_parse_rule(text, source, number))
    return tuple(rules)


def named_rules(source: str, patterns: Sequence[str]) -> RuleList:
    """Rules that stand in no file; each is known by ``source`` and its pattern."""
    return RuleList(
        tuple(_parse_rule(pattern.encode(), f"{source}: {pattern}", 0) for pattern in patterns)
    )


def _parse_rule(text: bytes, source: str, line: int) -> IgnoreRule:
    if len(text) > MAX_RULE_BYTES:
        raise _refused_file(f"a rule longer than {MAX_RULE_BYTES} bytes", f"{source}:{line}")
    negative = text.startswith(b"!")
    folders_only = text.endswith(b"/") and len(text) > negative
    pattern = text[negative : len(text) - folders_only]
    compiled, fault = _rule_expression(pattern)
    shown = "".join(c if c.isprintable() else "?" for c in _decode_text(text))
    return IgnoreRule(source, line, shown, pattern, negative, folders_only, compiled, fault)


def _rule_expression(pattern: bytes) -> tuple[bytes, str]:
    """(the regular expression, "") or (one that matches nothing, why)."""
    relative = pattern.removeprefix(b"/") if pattern.startswith(b"/") else pattern
    if not relative:
        return b"(?!)", "nothing is named"
    try:
        return compile_pattern(relative), ""
    except NeverMatches as error:
        return b"(?!)", str(error)


def _without_blanks(line: bytes) -> bytes:
    """``line`` without the blanks at its end, but for one that a backslash protects."""
    end = len(line)
    while end and line[end - 1 : end] == b" ":
        end -= 1
    backslashes = len(line[:end]) - len(line[:end].rstrip(b"\\"))
    return line[: end + 1] if backslashes % 2 else line[:end]


def line_for(path: str) -> str:
    """The line that takes ``path`` back, to the letter."""
    return "!/" + _SPECIAL.sub(r"\\\1", path)


def _unescape_pattern(pattern: bytes) -> str:
    return _decode_text(_ESCAPE.sub(rb"\1", pattern))


def _decode_text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _refused_file(what: str, where: str) -> UsageError:
    return UsageError(
        what,
        id="OR-SYNC-010",
        where=where,
        remedy="is this the file you meant? An ignore file holds one pattern a line",
    )
