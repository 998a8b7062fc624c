"""Tables whose columns have a fixed width (``sinfo -O``): a longer cell is cut off without a mark,
and the next one follows without a blank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What a cut cell would say wrongly.
_WHOLE = frozenset(
    {"NODELIST", "HOSTNAMES", "HOSTNAME", "NODE_LIST", "NODE_ADDR", "GRES", "PARTITION"}
)


@dataclass(frozen=True, slots=True)
class FixedColumns:
    """Name, first character and end of each column; ``room`` characters of it hold its cell."""

    spans: tuple[tuple[str, int, int, int], ...]

    def cells(self, line: str) -> Mapping[str, str]:
        return {name: line[start:end].rstrip() for name, start, end, _ in self.spans}

    def cut(self, line: str) -> str:
        """The column whose cell fills all its room, so that it may be cut off; or ``""``."""
        for name, start, end, room in self.spans:
            if name in _WHOLE and len(line[start:end].rstrip()) >= room:
                return name
        return ""


def fixed_columns(header: str, rows: Sequence[str]) -> FixedColumns | None:
    """The columns of a table whose lines are all as long as its header, which ends in blanks, and
    whose cells begin where their names do. None for any other table.
    """
    if header[:1] == " " or header[-1:] != " " or any(len(row) != len(header) for row in rows):
        return None
    words = [(match[0].upper(), match.start()) for match in re.finditer(r"\S+", header)]
    ends = [*(start for _, start in words[1:]), len(header)]
    spans = []
    for (name, start), end in zip(words, ends, strict=True):
        cells = [row[start:end] for row in rows]
        if any(cell[0] == " " and cell.strip() for cell in cells):
            return None
        is_apart = end < len(header) and all(cell[-1] == " " for cell in cells)
        spans.append((name, start, end, end - start - is_apart))
    return FixedColumns(tuple(spans))
