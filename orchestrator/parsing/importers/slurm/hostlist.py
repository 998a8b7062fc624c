"""Slurm's host lists, ``n[001-3],m1``, expanded as ``scontrol show hostnames`` does.

Unlike in the node sets of this project, the first bound of a range sets the width, blanks separate
as commas do, and empty items count for nothing.
"""

from __future__ import annotations

import itertools
import re

from orchestrator.core.base.nodeset import MAX_NAMES, NodeSetError, is_name, parse_numbers, too_many

_ITEM = re.compile(r"(?:[^\s,\[]|\[[^\]]*(?:\]|$))+")
_PIECE = re.compile(r"\[[^\]]*\]?|[^\[]+")


def expand_hostlist(text: str, limit: int = MAX_NAMES) -> tuple[str, ...]:
    """The names of ``text`` in Slurm's order, each once.

    A suffix behind a bracket, which Slurm refuses, is accepted. Raises :class:`NodeSetError`.
    """
    names: dict[str, None] = {}
    for item in _ITEM.finditer(text):
        for name in _expand_item(item[0], item.start() + 1, limit):
            names[name] = None
        if len(names) > limit:
            raise NodeSetError(too_many(limit), item.start() + 1)
    return tuple(names)


def expand_parallel(text: str, count: int) -> tuple[str, ...]:
    """Addresses for ``count`` nodes, in their order; duplicates stay. One may stand for all.

    Raises :class:`NodeSetError` when there are more or fewer.
    """
    names = [
        name
        for item in _ITEM.finditer(text)
        for name in _expand_item(item[0], item.start() + 1, MAX_NAMES, checked=False)
    ]
    if len(names) == 1:
        names *= count
    if len(names) != count:
        raise NodeSetError(f"{len(names)} addresses for {count} nodes", 1)
    return tuple(names)


def _expand_item(item: str, column: int, limit: int, *, checked: bool = True) -> list[str]:
    axes: list[tuple[str, ...]] = []
    brackets: list[int] = []
    total = 1
    for match in _PIECE.finditer(item):
        at = column + match.start()
        axis: tuple[str, ...] = (match[0],)
        if match[0][0] == "[":
            brackets.append(len(axes))
            axis = _bracket_numbers(match[0], at, limit)
        total *= len(axis)
        if total > limit:
            raise NodeSetError(too_many(limit), column)
        axes.append(axis)
    names = _in_order(axes, brackets)
    for name in names:
        if checked and not is_name(name):
            raise NodeSetError("not a node name", column)
    return names


def _bracket_numbers(bracket: str, at: int, limit: int) -> tuple[str, ...]:
    if not bracket.endswith("]"):
        raise NodeSetError("'[' is never closed", at)
    if any(char.isspace() for char in bracket):
        raise NodeSetError("a blank inside a bracket", at)
    return parse_numbers(bracket[1:-1], at + 1, limit, first_sets_width=True)


def _in_order(axes: list[tuple[str, ...]], brackets: list[int]) -> list[str]:
    """Every combination. The last bracket runs fastest, then the first, the second, and so on."""
    slowest_first = [*reversed(brackets[:-1]), *brackets[-1:]]
    names: list[str] = []
    for choice in itertools.product(*(axes[index] for index in slowest_first)):
        chosen = dict(zip(slowest_first, choice, strict=True))
        names.append("".join(chosen.get(index, axis[0]) for index, axis in enumerate(axes)))
    return names
