"""YAML with comments, from plain data. Pure.

What people read and keep in git has to explain itself, and no serializer of plain data writes
comments. Texts that are not plain words are JSON strings, which YAML 1.1 and 1.2 read alike.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

WIDTH = 110
# Not numbers, dates, or words that YAML 1.1 reads as something else.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_WORDS = frozenset("true false yes no on off y n null".split())
# Printable to JSON, but line ends or forbidden in YAML; and what would hide in an editor.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Noted:
    """``value`` with a comment above it, one text a paragraph."""

    value: object
    notes: tuple[str, ...]


def render_yaml(document: Mapping[str, object], head: Sequence[str] = ()) -> str:
    """One document, which begins with the comment ``head``.

    Its values are mappings with text keys, sequences, texts, whole numbers and booleans, each of
    them perhaps :class:`Noted`. Raises ``TypeError`` for anything else.
    """
    lines = [*_comment(head, 0), *_mapping(document, 0)]
    return "\n".join(lines) + "\n"


def _mapping(value: Mapping[str, object], indent: int) -> Iterator[str]:
    for key, item in value.items():
        yield from _entry(f"{_scalar(key)}:", item, indent)


def _sequence(value: Sequence[object], indent: int) -> Iterator[str]:
    for item in value:
        inner, notes = _parts(item)
        yield from _comment(notes, indent)
        if _is_flat(inner):
            yield f"{' ' * indent}- {_scalar(inner)}"
            continue
        first, *rest = _block(inner, indent + 2)
        yield f"{' ' * indent}- {first.lstrip()}"
        yield from rest


def _entry(head: str, item: object, indent: int) -> Iterator[str]:
    inner, notes = _parts(item)
    yield from _comment(notes, indent)
    if _is_flat(inner):
        yield f"{' ' * indent}{head} {_scalar(inner)}"
        return
    yield f"{' ' * indent}{head}"
    yield from _block(inner, indent + 2)


def _parts(item: object) -> tuple[object, tuple[str, ...]]:
    return (item.value, item.notes) if isinstance(item, Noted) else (item, ())


def _is_flat(value: object) -> bool:
    return not value or not isinstance(value, Mapping | list | tuple)


def _block(value: object, indent: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        return _mapping(value, indent)
    assert isinstance(value, list | tuple)
    return _sequence(value, indent)


def _scalar(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
            return value if plain else _quoted(value)
        case Mapping() if not value:
            return "{}"
        case list() | tuple() if not value:
            return "[]"
    raise TypeError(f"a manifest has no {type(value).__name__}")


def _quoted(text: str) -> str:
    """A JSON string in which everything that can be read is left as it is."""
    escape = _ESCAPED.sub
    return escape(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def _comment(notes: Sequence[str], indent: int) -> Iterator[str]:
    """Paragraphs of words; what does not print is left out."""
    lead = f"{' ' * indent}# "
    for note in notes:
        words = " ".join("".join(c if c.isprintable() else " " for c in note).split())
        yield from textwrap.wrap(
            words,
            WIDTH,
            initial_indent=lead,
            subsequent_indent=lead,
            break_long_words=False,
            break_on_hyphens=False,
        )
