"""Tables of ``sinfo``, ``squeue`` and ``sacct``: the header says what the columns are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from orchestrator.core.base.nodeset import NodeSetError
from orchestrator.parsing.importers.foreign_nodes import Collector
from orchestrator.parsing.importers.slurm.fixed_columns import fixed_columns
from orchestrator.parsing.importers.slurm.gres import gpus_of
from orchestrator.parsing.importers.slurm.hostlist import expand_hostlist
from orchestrator.parsing.importers.slurm.states import is_no_reason, state_trouble

NODES = ("NODELIST", "NODELIST(REASON)", "HOSTNAMES", "HOSTNAME", "NODE_LIST")
STATES = ("STATE", "ST", "STATELONG", "STATECOMPACT")
_FREE_TEXT = frozenset({"REASON", "NAME", "JOBNAME", "COMMENT"})
_OF_JOBS = frozenset({"JOBID", "JOBIDRAW"})
_NO_NODES = re.compile(r"\s(\(.*\)|None assigned)$")
_NONE = "(none)"
# What sinfo -O calls a column.
_WIDER = {
    **dict.fromkeys(("NODELIST", "NODE_LIST"), "NodeList"),
    **dict.fromkeys(("HOSTNAMES", "HOSTNAME"), "NodeHost"),
    "NODE_ADDR": "NodeAddr",
    "GRES": "Gres",
    "PARTITION": "Partition",
}
_RULE = re.compile(r"[-\s|]+")

Lines = Iterable[tuple[int, str]]


def header_of(line: str) -> list[str]:
    """The columns that ``line`` names, in capitals; empty when it is no header."""
    words = [word.strip().upper() for word in _split_cells(line)]
    return words if any(word in NODES for word in words) else []


def read_table(header: str, lines: Lines, found: Collector) -> None:
    """Add the nodes of the lines below a header; partitions become groups."""
    columns = header_of(header.strip())
    names = next(name for name in NODES if name in columns)
    told: set[tuple[str, str]] = set()
    rows = [(line, content) for line, content in lines if not _is_rule(content, columns)]
    fixed = fixed_columns(header, [content for _, content in rows])
    for line, content in rows:
        if fixed is not None and (column := fixed.cut(content)):
            what = f"its {column} fills the column and may be cut off: print it wider, as"
            found.unknown(f"{what} sinfo -O {_WIDER[column]}:200", line, content.strip())
            continue
        row = fixed.cells(content) if fixed is not None else _parse_row(content.strip(), columns)
        if row is None:
            found.unknown(f"a row of {len(columns)} columns is expected", line, content.strip())
        elif row[names] and not row[names].startswith("("):
            _add_nodes(row, row[names], line, found, told)


def _is_rule(content: str, columns: list[str]) -> bool:
    """Whether it is a line below a header, or that header once more."""
    return _RULE.fullmatch(content.strip()) is not None or header_of(content.strip()) == columns


def _split_cells(line: str) -> list[str]:
    return (
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        if "|" in line
        else line.split()
    )


def _parse_row(content: str, columns: list[str]) -> dict[str, str] | None:
    """The cells by column. The words that are too many belong to the column of free text."""
    if "|" in content:
        cells = _split_cells(content)
    else:
        words = _row_words(content, columns)
        free = [index for index, column in enumerate(columns) if column in _FREE_TEXT]
        more = len(words) - len(columns)
        if more > 0 and len(free) != 1:
            return None
        at = free[0] if more > 0 else len(columns) - 1
        end = at + max(more, 0) + 1
        cells = [*words[:at], " ".join(words[at:end]), *words[end:]]
        if more < 0 and columns[-1] not in NODES:
            cells = content.split(" ")  # a column without a width leaves an empty cell empty
    return dict(zip(columns, cells, strict=True)) if len(cells) == len(columns) else None


def _row_words(content: str, columns: list[str]) -> list[str]:
    """What stands in the place of nodes where there are none may be several words."""
    if columns[-1] not in NODES:
        return content.split()
    match = _NO_NODES.search(content)
    return [*content[: match.start()].split(), _NONE] if match else content.split()


def _add_nodes(
    row: Mapping[str, str], nodes: str, line: int, found: Collector, told: set[tuple[str, str]]
) -> None:
    try:
        names = expand_hostlist(nodes)
        gpus = gpus_of(row.get("GRES", ""))
    except NodeSetError as error:
        found.unknown(f"{error.reason} (column {error.column})", line, nodes)
        return
    except ValueError as error:
        found.unknown(str(error), line, nodes)
        return
    partition = row.get("PARTITION", "").rstrip("*")
    for name in names:
        groups = [partition] if partition and not _OF_JOBS & row.keys() else []
        address = row.get("NODE_ADDR") or None
        fields = {"gpus": gpus, "ssh": address if address != name else None}
        found.add(name, line, groups=groups, fields=fields)
    _note_trouble(row, nodes, line, found, told)


def _note_trouble(
    row: Mapping[str, str], nodes: str, line: int, found: Collector, told: set[tuple[str, str]]
) -> None:
    """Say once what keeps a node from running; it stands in a row of each of its partitions."""
    state = next((row[name] for name in STATES if name in row), "")
    is_list_of_reasons = not state and "REASON" in row
    reason = row.get("REASON", "")
    if is_list_of_reasons:
        what = "" if is_no_reason(reason) else reason
    else:
        what = state_trouble(state, reason)
    if what and not _OF_JOBS & row.keys() and (nodes, what) not in told:
        told.add((nodes, what))
        found.warn(f"{nodes} is {'not usable: ' if is_list_of_reasons else ''}{what}", line)
