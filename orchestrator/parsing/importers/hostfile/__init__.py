"""Hostfiles of Open MPI, MPICH and DeepSpeed: slots are GPUs. What a file means is for its owner to
say, and they differ, so each is read by the rule of the tool that is named or recognised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator.parsing.importers.foreign_nodes import Collector, Imported
from orchestrator.parsing.importers.hostfile.entries import (
    HostfileEntry,
    LineProblem,
    lines_deepspeed,
    lines_mpich,
    lines_openmpi,
    read_deepspeed,
    read_mpich,
    read_openmpi,
)
from orchestrator.parsing.importers.recognise import refuse_other

OPENMPI, MPICH, DEEPSPEED = "openmpi", "mpich", "deepspeed"
DIALECTS = (OPENMPI, MPICH, DEEPSPEED)

_TITLES = {OPENMPI: "Open MPI", MPICH: "MPICH", DEEPSPEED: "DeepSpeed"}
_WITH_COUNT = re.compile(r"[^\s:\[\]]+:[0-9]+(\s|$)")
_KEYWORD = re.compile(r"\s(slots|cpu|count|max[-_]slots|slots[-_]max|user[-_]?name)\s*=")
_PLAIN_SLOTS = re.compile(r"\S+\s+slots=[0-9]+(\s*#.*)?")
_SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class _Rule:
    """How a tool reads its lines, and what several lines of one host are to it."""

    lines: Callable[[str], Iterator[tuple[int, str]]]
    read: Callable[[str, int], HostfileEntry]
    count: Callable[[list[HostfileEntry], Collector], dict[str, int | None]]


def parse_hostfile(
    text: str, source: str, dialect: str | None = None, *, skip_unknown: bool = False
) -> Imported:
    """Hosts with their slots. ``dialect`` is one of ``DIALECTS``; None recognises it.

    Raises :class:`UsageError` when no host is found, or one is not understood.
    """
    refuse_other(text, source, "hostfile")
    found = Collector(source, skip_unknown=skip_unknown)
    name = dialect or _recognised_tool(text, found)
    rule = _RULES[name]
    entries = []
    for line, content in rule.lines(text):
        try:
            entries.append(rule.read(content, line))
            _check_slots(entries[-1], content, guessed=dialect is None)
        except LineProblem as problem:
            found.unknown(f"{problem} ({_TITLES[name]})", line, content)
    slots = rule.count(entries, found)
    _add_nodes(entries, slots, found)
    return found.imported()


def _recognised_tool(text: str, found: Collector) -> str:
    """The tool whose form the lines have, said in a note."""
    lines = [content for _, content in lines_mpich(text)]
    alike = all(map(_PLAIN_SLOTS.fullmatch, lines)) and len(lines) == len(
        {line.split()[0] for line in lines}
    )
    if any(map(_WITH_COUNT.match, lines)):
        name, why = MPICH, "host:N"
    elif any(map(_KEYWORD.search, lines)):
        name, why = OPENMPI, "slots=N, as DeepSpeed reads it, too" if alike else "slots=N"
    else:
        found.note("read as a list of hosts; --dialect names the tool that it is for")
        return OPENMPI
    found.note(f"read as a hostfile of {_TITLES[name]} ({why}); --dialect names another tool")
    return name


def _check_slots(entry: HostfileEntry, content: str, *, guessed: bool) -> None:
    """A number that may be ssh's port is not guessed to be processes."""
    if guessed and entry.slots == _SSH_PORT and f":{_SSH_PORT}" in content:
        where = f"[host]:{_SSH_PORT}, or name the tool with --dialect"
        raise LineProblem(f":{_SSH_PORT} may be ssh's port; write {where}")


def _count_openmpi(entries: list[HostfileEntry], found: Collector) -> dict[str, int | None]:
    """A line without slots adds one; slots are given once, and before such lines."""
    totals: dict[str, int | None] = {}
    first: dict[str, HostfileEntry] = {}
    spelled: dict[str, str] = {}
    for entry in entries:
        host = _bare_host(entry.host)
        before = spelled.setdefault(_short_name(host), host)
        if before != host:
            what = f"Open MPI takes this and the host of line {first[before].line} as one node"
            found.unknown(what, entry.line, host)
        elif host not in totals:
            totals[host] = entry.slots if entry.slots is not None else entry.most
            first[host] = entry
        elif entry.slots is not None:
            what = f"a second number of slots for the host of line {first[host].line}"
            found.unknown(what, entry.line, host)
        else:
            known = totals[host]
            totals[host] = total = (1 if known is None else known) + 1
            if entry.most is not None and entry.most < total:
                what = "max_slots is less than the slots of this host's lines"
                found.unknown(what, entry.line, host)
    return totals


def _count_mpich(entries: list[HostfileEntry], found: Collector) -> dict[str, int | None]:
    """Each line is an entry of its own; a host without a number runs one process."""
    totals: dict[str, int | None] = {}
    last = ""
    apart: dict[str, None] = {}
    for entry in entries:
        host = _bare_host(entry.host)
        if host in totals and host != last:
            apart[host] = None
        totals[host] = (totals.get(host) or 0) + (1 if entry.slots is None else entry.slots)
        last = host
    if apart:
        layout = ", ".join(_layout_notes(entries))
        what = f"{', '.join(apart)} has several entries, here one: MPICH would put ranks {layout}"
        found.warn(f"{what}; here each node's ranks are together")
    return totals


def _count_deepspeed(entries: list[HostfileEntry], found: Collector) -> dict[str, int | None]:
    """A host stands once."""
    first: dict[str, HostfileEntry] = {}
    for entry in entries:
        if first.setdefault(entry.host, entry) is not entry:
            what = f"a second entry for the host of line {first[entry.host].line} (DeepSpeed)"
            found.unknown(what, entry.line, entry.host)
    return {_bare_host(host): entry.slots for host, entry in first.items()}


def _layout_notes(entries: list[HostfileEntry]) -> Iterator[str]:
    at = 0
    for entry in entries[:20]:
        count = 1 if entry.slots is None else entry.slots
        last = f"-{at + count - 1}" if count > 1 else ""
        yield f"{at}{last} on {_bare_host(entry.host)}"
        at += count


_RULES = {
    OPENMPI: _Rule(lines_openmpi, read_openmpi, _count_openmpi),
    MPICH: _Rule(lines_mpich, read_mpich, _count_mpich),
    DEEPSPEED: _Rule(lines_deepspeed, read_deepspeed, _count_deepspeed),
}


def _add_nodes(
    entries: list[HostfileEntry], slots: dict[str, int | None], found: Collector
) -> None:
    """Nodes in the order of their first lines; without a number, GPUs are as many as are found."""
    is_plain = all(count is None for count in slots.values())
    told: set[str] = set()
    for entry in entries:
        host = _bare_host(entry.host)
        if host not in slots:
            continue  # refused above
        count = slots[host]
        if count is None and not is_plain and host not in told:
            found.warn(f"{host} has no number of slots: its GPUs are those found", entry.line)
        if count == 0 and host not in told:
            found.warn(f"{host} has 0 slots: nothing runs there; left out", entry.line)
        told.add(host)
        if count != 0:
            gpus = None if count is None else found.gpus(count, entry.line)
            fields = {"gpus": gpus, "user": entry.user, "port": entry.port}
            found.add(entry.host, entry.line, fields=fields)


def _bare_host(host: str) -> str:
    return host.rpartition("@")[2]


def _short_name(host: str) -> str:
    """What Open MPI compares: the name without its domain; an address stays whole."""
    is_address = ":" in host or re.fullmatch(r"[0-9.]+", host) is not None
    return host if is_address else host.partition(".")[0]
