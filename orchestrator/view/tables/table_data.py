"""Tables as data: what a command shows, before anybody decides how it is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.core.base.nodeset import fold_nodeset

UNKNOWN = "?"
NONE = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """``title`` is a line above it, "" = none."""

    title: str = ""
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def fold_rows(rows: Iterable[tuple[str, Sequence[str]]]) -> tuple[tuple[str, ...], ...]:
    """(node, cells) as rows: nodes whose cells are equal share one, under their folded names."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for node, cells in rows:
        alike.setdefault(tuple(cells), []).append(node)
    return tuple((fold_nodeset(nodes), *cells) for cells, nodes in alike.items())


def figure_text(value: object, unit: str = "") -> str:
    """A figure with its unit; ``?`` for what could not be found out."""
    return UNKNOWN if value is None or value == "" else f"{value}{unit}"
