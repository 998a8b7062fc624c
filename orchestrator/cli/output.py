"""What commands print on stdout: JSON for machines, tables for people."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from orchestrator.core.base.command import MASK, Secret


def plain_data(value: object) -> Any:
    """Core data as JSON: dataclasses and named tuples become objects, secrets ``***``."""
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain_data(item) for name, item in value._asdict().items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain_data(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(item) for item in value]
    return value


def print_json(kind: str, value: Mapping[str, object]) -> None:
    """One line: ``value`` with its ``type`` and ``schema_version``."""
    record = {"type": kind, "schema_version": 1, **value}
    print(json.dumps(record, ensure_ascii=True, allow_nan=False))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn by rich on a terminal, else aligned columns without any colour."""
    rows = [[_one_line(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(headings, rows)
        return
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _one_line(cell: str) -> str:
    """``cell`` without line breaks, and without what would steer a terminal."""
    words = " ".join(cell.split())
    return "".join(char if char.isprintable() else "\ufffd" for char in words)


def _print_rich(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
