"""Slurm: a node list, ``scontrol show hostnames`` or ``show node``, ``sinfo``, slurm.conf."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.core.base.nodeset import NodeSetError, expand
from orchestrator.parsing.importers.foreign_nodes import Collector, Imported, lines_of

_GRES = re.compile(r"\bgpu(?::([A-Za-z][A-Za-z0-9_.-]*))?:([0-9]{1,4})")
_PAIR = re.compile(r"(?:^|\s)([A-Za-z]+)=(\S*)")
_UNUSABLE = ("down", "drain", "fail", "unk", "maint")


def parse_slurm(text: str, source: str) -> Imported:
    """Nodes with GPU counts from gres where shown; partitions become groups.

    Raises :class:`UsageError` when no node is found.
    """
    found = Collector(source)
    columns: list[str] = []
    names: tuple[str, ...] = ()
    for line, content in lines_of(text):
        words = content.split()
        pairs = {key.lower(): value for key, value in _PAIR.findall(content)}
        if "NODELIST" in words:
            columns = words
        elif "nodename" in pairs or (pairs and names):
            names = _expand(found, pairs["nodename"], line) if "nodename" in pairs else names
            _add_record(found, names, pairs, line)
        elif columns and len(words) == len(columns):
            _add_row(found, dict(zip(columns, words, strict=True)), line)
        else:
            _add_plain(found, words, line)
    return found.imported()


def _add_record(
    found: Collector, names: tuple[str, ...], pairs: Mapping[str, str], line: int
) -> None:
    """``NodeName=... Gres=... NodeAddr=...``, perhaps over several lines."""
    address = pairs.get("nodeaddr", "")
    for name in names:
        if name != "DEFAULT":
            ssh = address if len(names) == 1 and address not in ("", name) else None
            gpus = _gpus(found, pairs.get("gres", ""), line)
            found.add(name, line, fields={"ssh": ssh, "gpus": gpus})


def _add_row(found: Collector, row: Mapping[str, str], line: int) -> None:
    """A line below a header that has NODELIST."""
    state = row.get("STATE", "").lower()
    if state.startswith(_UNUSABLE):
        found.warn(f"{row['NODELIST']} is {state}", line)
    partition = row.get("PARTITION", "").rstrip("*")
    for name in _expand(found, row["NODELIST"], line):
        groups = [partition] if partition else []
        gpus = _gpus(found, row.get("GRES", ""), line)
        found.add(name, line, groups=groups, fields={"gpus": gpus})


def _add_plain(found: Collector, words: list[str], line: int) -> None:
    """A node list, perhaps with gres beside it."""
    nodes, *others = words
    gres = [word for word in others if _GRES.search(word)]
    for word in others:
        if word not in gres and word != "(null)":
            found.warn(f"{word[:80]!r} is not understood", line)
    for name in _expand(found, nodes, line):
        found.add(name, line, fields={"gpus": _gpus(found, " ".join(gres), line)})


def _expand(found: Collector, nodes: str, line: int) -> tuple[str, ...]:
    try:
        return expand(nodes)
    except NodeSetError as error:
        found.warn(f"{nodes[:80]!r} is not a node list: {error}", line)
        return ()


def _gpus(found: Collector, gres: str, line: int) -> dict[str, str | int] | int | None:
    matches = _GRES.findall(gres)
    if not matches:
        return None
    count = found.gpus(sum(int(number) for _, number in matches), line)
    types = {type_ for type_, _ in matches if type_}
    if count is None or len(types) != 1:
        return count
    return {"count": count, "type": types.pop()}
