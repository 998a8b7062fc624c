"""Folded node names, such as ``gpu[01-16]``, ``a[1-3,7]b`` and ``r[1-2]n[1-4]``.

A bracket holds comma-separated numbers and ranges; zero padding is kept: ``[08-10]`` is 08 09 10.
:func:`expand_nodeset` keeps the order of writing; :class:`NodeSet` is a set in natural order, gpu2
before gpu10.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MAX_NAMES = 10_000
MAX_NAME_LENGTH = 253
MAX_DIGITS = 18

_LITERAL = r"[A-Za-z0-9._-]+"  # a pattern; compiled by what expands
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class NodeSetError(ValueError):
    """Text that is no node set. ``column`` counts from 1; ``reason`` repeats nothing of it."""

    def __init__(self, reason: str, column: int, found: str = "") -> None:
        self.reason = reason
        self.message = f"{reason}, found {found!r}" if found else reason
        self.column = column
        super().__init__(f"{self.message} (column {column})")


def is_name(text: str) -> bool:
    """Whether ``text`` is one node name: letters, digits, ``. _ -``; no leading ``.`` or ``-``."""
    return len(text) <= MAX_NAME_LENGTH and _NAME.fullmatch(text) is not None


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts gpu2 before gpu10, and gpu1 before gpu01."""
    return tuple(
        (1, int(run), f"{len(run):04}") if _is_number(run) else (0, 0, run)
        for run in _text_runs(name)
    )


def expand_nodeset(text: str, limit: int = MAX_NAMES) -> tuple[str, ...]:
    """The names that ``text`` stands for, in its order, each once.

    Raises :class:`NodeSetError` for bad syntax, and for more than ``limit`` names before a term
    builds them.
    """
    names: dict[str, None] = {}
    for start, term in split_terms(text):
        for name in _expand_term(term, start, limit):
            names[name] = None
        if len(names) > limit:
            raise NodeSetError(too_many(limit), start)
    return tuple(names)


def split_terms(text: str) -> list[tuple[int, str]]:
    """Comma-separated terms, each with its column (from 1); a comma in a bracket does not split.

    Raises :class:`NodeSetError` for an empty term or an unbalanced bracket.
    """
    terms: list[tuple[int, str]] = []
    start, opened = 0, 0
    for at, char in enumerate(f"{text},"):
        if char == "[":
            if opened:
                raise NodeSetError("a bracket inside a bracket", at + 1)
            opened = at + 1
        elif char == "]":
            if not opened:
                raise NodeSetError("']' without '['", at + 1)
            opened = 0
        elif char == "," and not (opened and at < len(text)):
            terms.append(_strip_term(text[start:at], start + 1))
            start = at + 1
    if opened:
        raise NodeSetError("'[' is never closed", opened)
    return terms


def fold_nodeset(names: Iterable[str]) -> str:
    """Compact text, naturally sorted, with ``set(expand(fold(names))) == set(names)``."""
    by_shape: dict[tuple[str | None, ...], list[tuple[frozenset[str], ...]]] = {}
    for name in sorted(set(names), key=natural_key):
        runs = _text_runs(name)
        shape = tuple(None if _is_number(run) else run for run in runs)
        by_shape.setdefault(shape, []).append(tuple(frozenset([run]) for run in runs))
    return ",".join(
        "".join(map(_render_axis, box))
        for boxes in by_shape.values()
        for box in _merge_boxes(boxes)
    )


@dataclass(frozen=True, slots=True)
class NodeSet:
    """A set of node names in natural order; ``str`` folds it; has ``|``, ``&``, ``-`` and ``^``."""

    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Iterable[str]) -> NodeSet:
        return cls(tuple(sorted(set(names), key=natural_key)))

    @classmethod
    def parse(cls, text: str, limit: int = MAX_NAMES) -> NodeSet:
        """Empty or blank text is the empty set. Raises :class:`NodeSetError`."""
        return cls.of(expand_nodeset(text, limit)) if text.strip() else cls()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __or__(self, other: NodeSet) -> NodeSet:
        return NodeSet.of({*self.names, *other.names})

    def __and__(self, other: NodeSet) -> NodeSet:
        return NodeSet.of(set(self.names) & set(other.names))

    def __sub__(self, other: NodeSet) -> NodeSet:
        return NodeSet.of(set(self.names) - set(other.names))

    def __xor__(self, other: NodeSet) -> NodeSet:
        return NodeSet.of(set(self.names) ^ set(other.names))

    def __str__(self) -> str:
        return fold_nodeset(self.names)


def parse_numbers(
    text: str, column: int = 1, limit: int = MAX_NAMES, *, first_sets_width: bool = False
) -> tuple[str, ...]:
    """A bracket's content, ``1-3,7``, as numbers in text form with their zero padding.

    Both ends of a range need the same padding, for tools disagree on what unequal ends mean;
    ``first_sets_width``: the second may be shorter or longer. Raises
    :class:`NodeSetError`; ``column`` is where ``text`` starts.
    """
    numbers: list[str] = []
    for part in text.split(","):
        low, dash, high = (piece.strip() for piece in part.partition("-"))
        high = high if dash else low
        _check_bounds(low, high, part, column)
        if not first_sets_width:
            _check_padding(low, high, column)
        if int(high) - int(low) >= limit - len(numbers):
            raise NodeSetError(too_many(limit), column)
        width = len(low) if first_sets_width or _is_padded(low) else 1
        numbers += [f"{number:0{width}d}" for number in range(int(low), int(high) + 1)]
        column += len(part) + 1
    return tuple(numbers)


def too_many(limit: int) -> str:
    """What an expansion says that would make more than ``limit`` names."""
    return f"more than {limit} names"


def _check_bounds(low: str, high: str, part: str, column: int) -> None:
    if part.strip().startswith("-") or high.startswith("-"):
        raise NodeSetError("a number in brackets has no minus sign; a range is like 1-4", column)
    for bound in (low, high):
        if not _is_digits(bound):
            raise NodeSetError("expected a number or a range like 1-4", column, bound)
        if len(bound) > MAX_DIGITS:
            raise NodeSetError(f"a number of more than {MAX_DIGITS} digits", column)
    if int(high) < int(low):
        raise NodeSetError(f"{low}-{high} runs backwards", column)


def _check_padding(low: str, high: str, column: int) -> None:
    width = len(low) if _is_padded(low) else 1
    if len(high) < width or (_is_padded(high) and len(high) != len(low)):
        raise NodeSetError(f"{low}-{high}: both ends need the same zero padding", column)


def _expand_term(term: str, column: int, limit: int) -> list[str]:
    axes: list[tuple[str, ...]] = []
    total = 1
    for at, piece in _split_term(term, column):
        axis = parse_numbers(piece[1:-1], at + 1, limit) if piece[0] == "[" else (piece,)
        total *= len(axis)
        if total > limit:
            raise NodeSetError(too_many(limit), column)
        axes.append(axis)
    names = ["".join(parts) for parts in itertools.product(*axes)]
    for name in names:
        if not is_name(name):
            raise NodeSetError("not a node name", column, name[:80])
    return names


def _split_term(term: str, column: int) -> Iterator[tuple[int, str]]:
    at = 0
    while at < len(term):
        end = term.index("]", at) + 1 if term[at] == "[" else at
        literal = re.compile(_LITERAL).match(term, at)
        if literal is not None:
            end = literal.end()
        if end == at:
            raise NodeSetError(f"{term[at]!r} cannot be part of a node name", column + at)
        yield column + at, term[at:end]
        at = end


def _strip_term(raw: str, column: int) -> tuple[int, str]:
    term = raw.strip()
    if not term:
        raise NodeSetError("a name is missing", column)
    return column + len(raw) - len(raw.lstrip()), term


def _text_runs(name: str) -> list[str]:
    return re.findall(r"[0-9]+|[^0-9]+", name)


def _is_number(run: str) -> bool:
    return len(run) <= MAX_DIGITS and _is_digits(run)


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _is_padded(digits: str) -> bool:
    return len(digits) > 1 and digits[0] == "0"


def _merge_boxes(boxes: list[tuple[frozenset[str], ...]]) -> list[tuple[frozenset[str], ...]]:
    """Unite boxes (one set of texts per run) that differ in one run only, last run first."""
    for axis in reversed(range(len(boxes[0]))):
        united: dict[tuple[frozenset[str], ...], set[str]] = {}
        for box in boxes:
            rest = box[:axis] + box[axis + 1 :]
            united.setdefault(rest, set()).update(box[axis])
        boxes = [(*rest[:axis], frozenset(values), *rest[axis:]) for rest, values in united.items()]
    return boxes


def _render_axis(values: frozenset[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    left = set(values)
    ranges: list[str] = []
    for first in sorted(values, key=lambda text: (int(text), len(text))):
        if first not in left:
            continue
        width = len(first) if _is_padded(first) else 1
        last, number = first, int(first)
        left.discard(first)
        while (following := f"{number + 1:0{width}d}") in left:
            last, number = following, number + 1
            left.discard(following)
        ranges.append(first if last == first else f"{first}-{last}")
    return f"[{','.join(ranges)}]"
