"""The summary, parameters and rules of a workload.yaml, read without a library for YAML.

Plain YAML is understood: mappings and lists by indentation, lists and mappings in brackets on one
line, values that end on their line, quoted or not, and comments. Everything else (anchors, tags,
escapes, tabs, texts over several lines) is refused with its line and never guessed. What is read
here is what the coordinator reads; a test compares the two readers.
"""

from __future__ import annotations

import math
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, NoReturn, Optional, Pattern, Tuple, Union

    Scalar = Union[None, bool, int, float, str]

SECTIONS = ("summary", "parameters", "rules")
MAX_CHARACTERS = 1 << 20
MAX_INDENT = 64
MAX_BRACKETS = 16  # in one line

_KEY = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*) *:(?: +|$)")
_ITEM = re.compile(r"-(?: +|$)")
_DOUBLE_QUOTED = re.compile(r'"([^"\\]*)"')
_SINGLE_QUOTED = re.compile(r"'((?:[^']|'')*)'")
# Unquoted values begin like nothing else in YAML; in brackets they hold none of its marks.
_BEGIN = r"(?:-(?=[0-9A-Za-z.])|[^\s\-?:,\[\]{}#&*!|>'\"%@`])"
_UNQUOTED = re.compile(_BEGIN + r"(?:(?!: | #).)*(?<!:)")
_UNQUOTED_IN_BRACKETS = re.compile(_BEGIN + r"[^,\[\]{}:#'\"]*")
_BRACKET = re.compile(r"[\[{]")
_END = re.compile(r" *(?: #.*)?$")
_UNUSUAL = re.compile(
    "[^\t -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)

_INT = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_EXPONENT = r"[eE][-+]?[0-9]{1,4}"
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*(%s)?|%s)" % (_EXPONENT, _EXPONENT))
_MAX_NUMBER = 64  # characters
_CONSTANTS: Dict[str, Scalar] = {
    **dict.fromkeys(("~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class DeclarationError(ValueError):
    """A workload.yaml and its script do not fit together, or it is not plain YAML."""


def read_declaration(text: str, source: str) -> Dict[str, Any]:
    """The sections of ``SECTIONS`` that are there, as plain data; ``source`` is named in errors.

    Raises :class:`DeclarationError` with the line of what is not plain YAML.
    """
    return _Reader(_lines(text, source), source).sections()


class _Line:
    """One line that says something: ``text`` begins after ``indent`` spaces."""

    __slots__ = ("indent", "number", "text")

    def __init__(self, number: int, indent: int, text: str) -> None:
        self.number = number
        self.indent = indent
        self.text = text

    @property
    def is_item(self) -> bool:
        return _ITEM.match(self.text) is not None


def _lines(text: str, source: str) -> List[_Line]:
    """Without blank lines, comments and the mark of a document's beginning."""
    if len(text) > MAX_CHARACTERS:
        raise DeclarationError("%s: larger than %d characters" % (source, MAX_CHARACTERS))
    found = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw[:-1] if raw.endswith("\r") else raw
        content = line.lstrip(" ")
        if _UNUSUAL.search(line):
            _refuse(source, number, "an unusual character")
        if content.strip(" \t") and not content.startswith("#"):
            found.append(_Line(number, len(line) - len(content), content))
    return found[1:] if found and found[0].text == "---" and not found[0].indent else found


def _refuse(source: str, number: int, what: str) -> NoReturn:
    form = "a script reads plain YAML, with every value on one line"
    raise DeclarationError("%s:%d: %s: %s" % (source, number, what, form))


class _Reader:
    """Reads lines from the first to the last."""

    def __init__(self, lines: List[_Line], source: str) -> None:
        self._lines = lines
        self._source = source
        self._at = 0

    def sections(self) -> Dict[str, Any]:
        found: Dict[str, Any] = {}
        line = self._here()
        while line is not None:
            key, rest = self._key(line, 0)
            if key in found:
                self._refuse(line, "%r is given twice" % key)
            if key in SECTIONS:
                found[key] = self._value(line, rest)
            else:
                self._skip()
            line = self._here()
        return found

    def _here(self) -> Optional[_Line]:
        return self._lines[self._at] if self._at < len(self._lines) else None

    def _skip(self) -> None:
        """A section that is not asked for."""
        self._at += 1
        line = self._here()
        while line is not None and (line.indent or line.is_item):
            self._at += 1
            line = self._here()

    def _key(self, line: _Line, indent: int) -> Tuple[str, str]:
        """The key that a line begins with, and what stands behind it."""
        match = _KEY.match(line.text)
        if match is None or line.indent != indent or indent > MAX_INDENT:
            self._refuse(line, "expected `name: value`, indented by %d" % min(indent, MAX_INDENT))
        return match.group(1), line.text[match.end() :]

    def _value(self, line: _Line, rest: str) -> Any:
        """Of a key: what stands behind it, or below."""
        if rest and not rest.startswith("#"):
            return self._scalar(line, rest)
        self._at += 1
        below = self._here()
        if below is None or below.indent < line.indent:
            return None
        if below.is_item:
            return self._list(below.indent)
        return self._mapping(below.indent) if below.indent > line.indent else None

    def _mapping(self, indent: int) -> Dict[str, Any]:
        found: Dict[str, Any] = {}
        line = self._here()
        while line is not None and line.indent >= indent and not line.is_item:
            key, rest = self._key(line, indent)
            if key in found:
                self._refuse(line, "%r is given twice" % key)
            found[key] = self._value(line, rest)
            line = self._here()
        return found

    def _list(self, indent: int) -> List[Any]:
        found: List[Any] = []
        line = self._here()
        while line is not None and line.indent == indent and line.is_item:
            content = line.text[1:].lstrip(" ")
            if _KEY.match(content):
                inner = _Line(line.number, indent + len(line.text) - len(content), content)
                self._lines[self._at] = inner
                found.append(self._mapping(inner.indent))
            else:
                found.append(self._scalar(line, content))
            line = self._here()
        return found

    def _scalar(self, line: _Line, text: str) -> Any:
        """A value on its own line; nothing of it may follow below."""
        self._at += 1
        try:
            value = _Value(text).read()
        except ValueError as error:
            self._refuse(line, str(error))
        following = self._here()
        if following is not None and following.indent > line.indent:
            self._refuse(following, "expected the indentation of the line above, or less")
        return value

    def _refuse(self, line: _Line, what: str) -> NoReturn:
        _refuse(self._source, line.number, what)


class _Value:
    """One value of one line, and perhaps a comment behind it. Raises ``ValueError``."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def read(self) -> Any:
        if "\t" in self._text:
            raise ValueError("a tab")
        if len(_BRACKET.findall(self._text)) > MAX_BRACKETS:
            raise ValueError("nested too deeply")
        value = self._any(_UNQUOTED)
        self._take(_END)
        return value

    def _any(self, unquoted: Pattern[str]) -> Any:
        begin = self._text[self._at : self._at + 1]
        if begin == '"':
            return self._take(_DOUBLE_QUOTED)[1:-1]
        if begin == "'":
            return self._take(_SINGLE_QUOTED)[1:-1].replace("''", "'")
        if begin == "[":
            return [value for _, value in self._entries("]", keys=False)]
        if begin == "{":
            return self._unique(list(self._entries("}", keys=True)))
        return _resolved(self._take(unquoted).rstrip(" "))

    def _entries(self, end: str, keys: bool) -> Iterator[Tuple[str, Any]]:
        """What stands between brackets, with commas between."""
        self._at += 1
        while True:
            self._spaces()
            if self._skipped(end):
                return
            key = self._take(_KEY).rstrip(" ")[:-1].rstrip(" ") if keys else ""
            yield key, self._any(_UNQUOTED_IN_BRACKETS)
            self._spaces()
            if self._skipped(end):
                return
            if not self._skipped(","):
                raise ValueError("expected , or %s in brackets" % end)

    @staticmethod
    def _unique(entries: List[Tuple[str, Any]]) -> Dict[str, Any]:
        if len({key for key, _ in entries}) < len(entries):
            raise ValueError("a name is given twice")
        return dict(entries)

    def _take(self, pattern: Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError("cannot read %r" % self._text[self._at :][:40])
        self._at = match.end()
        return match.group()

    def _skipped(self, mark: str) -> bool:
        """Whether the mark was here; it is behind us then."""
        here = self._text.startswith(mark, self._at)
        self._at += len(mark) if here else 0
        return here

    def _spaces(self) -> None:
        while self._skipped(" "):
            pass


def _resolved(text: str) -> Scalar:
    """What an unquoted word means: null, true, false, a decimal number, else the text itself."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text)
    if len(text) <= _MAX_NUMBER and _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text
