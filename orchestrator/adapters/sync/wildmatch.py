"""Patterns of ignore files as git's wildmatch reads them, turned into regular expressions.

Bytes, as git compares: ``?`` is one byte, not one character. ``*``, ``?`` and brackets never match
``/``, and ``**`` between slashes matches any number of folders. The expressions take time in
proportion to the text for each element of the pattern, however many ``*`` there are: what a ``*``
found first is kept, for a later ``*`` can take up the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

_SPECIAL = re.compile(rb"[*?\[\\]")
_SLASH, _BACKSLASH, _STAR, _OPEN, _CLOSE, _DASH, _COLON = b"/\\*[]-:"
_QUESTION = ord("?")
_NEGATIONS = b"!^"
_SEGMENT = rb"[^/]"


class Wild(Enum):
    """The elements that match more than one byte."""

    STAR = "*"
    FOLDERS = "**/"
    ANYTHING = "**"


Element = bytes | Wild


class NeverMatches(ValueError):
    """A pattern that git takes for broken: it matches nothing, whatever the text."""


def literal_length(pattern: bytes) -> int:
    """How many bytes of ``pattern`` come before its first ``*``, ``?``, ``[`` or backslash."""
    found = _SPECIAL.search(pattern)
    return found.start() if found else len(pattern)


def compile_pattern(pattern: bytes) -> bytes:
    """A regular expression (DOTALL) that matches the whole of what ``pattern`` matches.

    ``**`` counts as at the beginning of a folder's name when nothing but plain text comes before
    it, as git skips such text before it looks at the rest. Raises :class:`NeverMatches`.
    """
    plain = literal_length(pattern)
    elements = list(_parse_elements(pattern[plain:]))
    return re.escape(pattern[:plain]) + _join_elements(elements) + rb"\Z"


@dataclass(slots=True)
class _PatternReader:
    """A pattern and how far it was read. What lies behind its end is a NUL, as in C."""

    text: bytes
    at: int = 0

    def peek(self, ahead: int = 0) -> int:
        index = self.at + ahead
        return self.text[index] if 0 <= index < len(self.text) else 0

    def take(self) -> int:
        """The next byte. Raises :class:`NeverMatches` at the end."""
        if self.at >= len(self.text):
            raise NeverMatches("it ends in the middle of an element")
        self.at += 1
        return self.text[self.at - 1]


def _parse_elements(text: bytes) -> Iterator[Element]:
    """One regular expression for each byte that is matched, and the wild elements."""
    reader = _PatternReader(text)
    while reader.at < len(text):
        byte = reader.take()
        if byte == _STAR:
            yield _parse_star(reader)
        elif byte == _QUESTION:
            yield _SEGMENT
        elif byte == _OPEN:
            yield _parse_bracket(reader)
        else:
            yield re.escape(bytes([reader.take() if byte == _BACKSLASH else byte]))


def _parse_star(reader: _PatternReader) -> Wild:
    """The element that begins with the ``*`` just read."""
    begin = reader.at - 1
    while reader.peek() == _STAR:
        reader.at += 1
    if reader.at - begin == 1 or (begin and reader.text[begin - 1] != _SLASH):
        return Wild.STAR
    if reader.peek() == _SLASH:
        reader.at += 1
        return Wild.FOLDERS
    if reader.at == len(reader.text) or (reader.peek(), reader.peek(1)) == (_BACKSLASH, _SLASH):
        return Wild.ANYTHING
    return Wild.STAR


def _parse_bracket(reader: _PatternReader) -> bytes:
    """An expression for the bracket whose ``[`` was just read."""
    negated = reader.peek() in _NEGATIONS
    reader.at += negated
    members: set[int] = set()
    before = 0  # what a dash after it would make a range of
    byte = reader.take()
    while True:
        if byte == _BACKSLASH:
            before = reader.take()
            members.add(before)
        elif byte == _DASH and before and reader.peek() not in (0, _CLOSE):
            last = reader.take()
            members.update(range(before, (reader.take() if last == _BACKSLASH else last) + 1))
            before = 0
        elif byte == _OPEN and (name := _class_name(reader)) is not None:
            members |= _class_members(name)
            before = 0
        else:
            members.add(byte)
            before = byte
        byte = reader.take()
        if byte == _CLOSE:
            return _set_expression(members, negated=negated)


def _class_name(reader: _PatternReader) -> bytes | None:
    """The name in ``[:name:]`` whose first ``[`` was just read; None if it is an ordinary ``[``."""
    if reader.peek() != _COLON:
        return None
    begin = reader.at + 1
    end = reader.text.find(b"]", begin)
    if end < 0:
        raise NeverMatches("a bracket is not closed")
    if end == begin or reader.text[end - 1] != _COLON:
        return None
    reader.at = end + 1
    return reader.text[begin : end - 1]


def _class_members(name: bytes) -> frozenset[int]:
    members = _CLASSES.get(name)
    if members is None:
        raise NeverMatches(f"there is no class [:{name.decode(errors='replace')}:]")
    return members


def _set_expression(members: set[int], *, negated: bool) -> bytes:
    """``members``, or all but them; never a slash."""
    members = {byte for byte in range(1, 256) if (byte in members) != negated} - {_SLASH}
    if not members:
        raise NeverMatches("no character fits a bracket")
    return b"[" + b"".join(rb"\x%02x" % byte for byte in sorted(members)) + b"]"


def _range_members(first: str, last: str) -> frozenset[int]:
    return frozenset(range(ord(first), ord(last) + 1))


_DIGIT, _UPPER, _LOWER = (
    _range_members("0", "9"),
    _range_members("A", "Z"),
    _range_members("a", "z"),
)
_GRAPH = _range_members("!", "~")
_ALNUM = _DIGIT | _UPPER | _LOWER
# Without a vertical tab and a form feed in "space": git's own tables say so.
_CLASSES: dict[bytes, frozenset[int]] = {
    b"alnum": _ALNUM,
    b"alpha": _UPPER | _LOWER,
    b"blank": frozenset(b" \t"),
    b"cntrl": frozenset(range(32)) | {127},
    b"digit": _DIGIT,
    b"graph": _GRAPH,
    b"lower": _LOWER,
    b"print": _GRAPH | {32},
    b"punct": _GRAPH - _ALNUM,
    b"space": frozenset(b" \t\n\r"),
    b"upper": _UPPER,
    b"xdigit": frozenset(b"0123456789abcdefABCDEF"),
}


def _join_elements(elements: list[Element]) -> bytes:
    """``**`` divides the pattern into groups: each but the last is taken where it fits first."""
    parts = _divide_elements(elements, (Wild.FOLDERS, Wild.ANYTHING))
    out = [_group_expression(parts[0][1])]
    for index, (wild, group) in enumerate(parts[1:], start=1):
        last = index == len(parts) - 1
        text = _group_expression(group)
        if wild is Wild.ANYTHING:
            out.append(b".*" + text)
        else:
            out.append(b"(?:.*/)?" + text if last else b"(?>(?:.*?/)??" + text + b")")
    return b"".join(out)


def _group_expression(elements: list[Element]) -> bytes:
    """Folders' names with ``/`` between them, without ``**``."""
    names: list[list[Element]] = [[]]
    for element in elements:
        if element == b"/":
            names.append([])
        else:
            names[-1].append(element)
    return b"/".join(map(_name_expression, names))


def _name_expression(elements: list[Element]) -> bytes:
    """A name: what comes after a ``*`` is taken where it fits first, but for the last."""
    parts = _divide_elements(elements, (Wild.STAR,))
    chunks = [b"".join(e for e in part if isinstance(e, bytes)) for _, part in parts]
    out = [chunks[0]]
    out += [b"(?>[^/]*?" + chunk + b")" for chunk in chunks[1:-1]]
    if len(chunks) > 1:
        out.append(b"[^/]*" + chunks[-1])
    return b"".join(out)


def _divide_elements(
    elements: list[Element], wild: tuple[Wild, ...]
) -> list[tuple[Wild | None, list[Element]]]:
    """(the wild element before it or None, the elements up to the next one)."""
    parts: list[tuple[Wild | None, list[Element]]] = [(None, [])]
    for element in elements:
        if isinstance(element, Wild) and element in wild:
            parts.append((element, []))
        else:
            parts[-1][1].append(element)
    return parts
