"""Slurm: a host list, slurm.conf, the tables of sinfo and squeue, the records of scontrol."""

from __future__ import annotations

import re

from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.nodeset import NodeSetError
from orchestrator.parsing.importers.foreign_nodes import Collector, Imported
from orchestrator.parsing.importers.recognise import refuse_other
from orchestrator.parsing.importers.slurm.gres import gpus_of, has_gpus
from orchestrator.parsing.importers.slurm.hostlist import expand_hostlist
from orchestrator.parsing.importers.slurm.slurm_cluster import Records
from orchestrator.parsing.importers.slurm.slurm_records import (
    Include,
    conf_records,
    is_printed,
    is_record,
    no_include,
    printed_records,
)
from orchestrator.parsing.importers.slurm.table import NODES, header_of, read_table
from orchestrator.parsing.importers.text_lines import split_lines

_OF_TABLES = frozenset(
    "alloc allocated comp completing down drain drained draining drng fail idle infinite maint mix "
    "mixed n/a no planned resv reserved unk unknown up yes".split()
)
_WORDS = re.compile(r"(?:[^\s,\[]|\[[^\]]*(?:\]|$))+")
_ADDRESS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
_DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ 0-9]{2} [0-9:]{8} [0-9]{4}")
_OTHER_CONF = re.compile(
    r"^(SwitchName|BlockName|AutoDetect|Name=gpu)\b|\bFile=/dev/", re.MULTILINE
)


def parse_slurm(
    text: str, source: str, include: Include = no_include, *, skip_unknown: bool = False
) -> Imported:
    """Nodes with addresses, and GPU counts from gres where shown; partitions become groups.

    Raises :class:`UsageError` when no node is found, or one is not understood.
    """
    refuse_other(text, source, "slurm")
    found = Collector(source, skip_unknown=skip_unknown)
    lines = [(n, line) for n, line in enumerate(split_lines(text), start=1)]
    printed = [(n, line) for n, line in lines if line.strip() and line.lstrip()[0] != "#"]
    told = [(n, line.strip()) for n, line in printed]
    headers = [at for at, (_, line) in enumerate(told) if header_of(line)]
    if is_record(told[0][1]):
        _read_records(text, source, include, found)
    elif headers:
        _read_above(told[: headers[0]], found)
        read_table(printed[headers[0]][1], printed[headers[0] + 1 :], found)
    else:
        _read_lists(told, found)
    found.source = source
    return found.imported()


def _read_records(text: str, source: str, include: Include, found: Collector) -> None:
    if _OTHER_CONF.search(text):
        what = "gres.conf or topology.conf, which does not say how nodes are reached"
        raise UsageError(
            f"this is {what}", id="import.other-kind", where=source, remedy="import slurm.conf"
        )
    records = Records(found)
    printed = is_printed(text)
    for record in printed_records(text, source) if printed else conf_records(text, source, include):
        records.take(record)
    records.finish()


def _read_above(lines: list[tuple[int, str]], found: Collector) -> None:
    """The date that a long table begins with."""
    for number, line in lines:
        if not _DATE.fullmatch(line):
            found.unknown("a line above the table's header", number, line)


def _read_lists(lines: list[tuple[int, str]], found: Collector) -> None:
    """Host lists, perhaps with a gres expression beside them."""
    for number, line in lines:
        content = re.split(r"\s#", line, maxsplit=1)[0]
        words = content.split()
        gres = [word for word in words if has_gpus(word)]
        nodes = [word for word in words if word not in gres and word != "(null)"]
        is_row = len(nodes) < len(words)
        cells = _WORDS.findall(" ".join(nodes))
        if any(cell in NODES for cell in cells):
            found.unknown("a table's header; columns are divided by blanks or by |", number, line)
            continue
        if any(cell.lower().rstrip("*") in _OF_TABLES or cell.isdecimal() for cell in cells):
            found.unknown("a row of a table without its header (-h leaves it out)", number, line)
            continue
        if len(nodes) > 1 and (is_row or any(map(_ADDRESS.fullmatch, nodes))):
            what = "several columns without a header that names them (-h leaves it out)"
            found.unknown(what, number, line)
            continue
        if _is_prose(nodes):
            found.unknown("words, not all with a number: name one node a line", number, line)
            continue
        try:
            names = expand_hostlist(" ".join(nodes))
            gpus = gpus_of(",".join(gres))
        except NodeSetError as error:
            found.unknown(f"{error.reason} (column {error.column})", number, line)
            continue
        except ValueError as error:
            found.unknown(str(error), number, line)
            continue
        for name in names:
            found.add(name, number, fields={"gpus": gpus})


def _is_prose(words: list[str]) -> bool:
    """Blanks may separate nodes, but a message or another file has them between its words, too."""
    plain = [word for word in words if not re.search(r"[0-9\[]", word)]
    is_list = any("," in word for word in words) and len(plain) == len(words)
    return len(plain) > 1 and not is_list
