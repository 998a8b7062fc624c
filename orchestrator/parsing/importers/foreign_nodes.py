"""What all importers share: a foreign node, and the inventory text that is written from them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn

from pydantic import ValidationError

from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.nodeset import (
    MAX_NAME_LENGTH,
    MAX_NAMES,
    expand_nodeset,
    fold_nodeset,
    is_name,
    natural_key,
    split_terms,
)
from orchestrator.parsing.inputs.cluster_schema import NodeEntry

MAX_WARNINGS = 50
MAX_PROBLEMS = 20
MAX_REASONS = 12
MAX_PLACES = 40
MAX_SHOWN = 80
MAX_GPUS = 64
Field = str | int | Mapping[str, str | int]
# Fields in words, for a file that may call them otherwise.
_FIELDS = {
    "ssh": "the address",
    "user": "the user's name",
    "key": "the path of the key",
    "jump": "the jump host",
    "python": "the interpreter",
    "gpus": "the number of GPUs",
}
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:%-]*")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignNode:
    """A host as another tool knows it. ``fields`` are keys of our inventory with their values."""

    name: str
    fields: Mapping[str, Field] = field(default_factory=dict)
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The result of an importer.

    ``warnings`` are what was not taken; ``notes`` are what the reader chose by itself.
    """

    nodes: tuple[ForeignNode, ...]
    defaults: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Unknown:
    """Text that stands for a host, as it seems, and cannot be understood.

    ``reason`` repeats nothing of the file, which may be something else altogether, and private.
    """

    where: str
    reason: str
    shown: str

    def __str__(self) -> str:
        shown = f"{shorten_text(self.shown)!r}: " if self.shown else ""
        return f"{self.where}: {shown}{self.reason}"


class Collector:
    """Gathers nodes by name, in order, and what is wrong; all bounded.

    A host that cannot be understood stops the import, since a cluster with a node less is worse
    than an error; with ``skip_unknown`` it is left out with a warning.
    """

    def __init__(self, source: str, *, skip_unknown: bool = False) -> None:
        self.source = source
        self._skip_unknown = skip_unknown
        self._nodes: dict[str, ForeignNode] = {}
        self._hosts: dict[str, str] = {}  # a node's name -> the host as it was written
        self._warnings: dict[str, None] = {}
        self._unknown: dict[_Unknown, None] = {}
        self._notes: dict[str, None] = {}

    def warn(self, text: str, line: int = 0) -> None:
        """Say what is not taken; ``line`` 0 = no line in particular."""
        self._warnings[f"{self._where(line)}: {text}"] = None

    def note(self, text: str) -> None:
        """Say what was chosen without being asked."""
        self._notes[f"{self.source}: {text}"] = None

    def unknown(self, reason: str, line: int = 0, shown: str = "") -> None:
        """A host is lost: ``reason`` without the file's own words, which are ``shown``."""
        self._unknown[_Unknown(self._where(line), reason, shown)] = None

    def add(
        self,
        host: str,
        line: int = 0,
        *,
        groups: Iterable[str] = (),
        fields: Mapping[str, Field | None] | None = None,
    ) -> None:
        """Add ``host`` (``user@host`` is understood); a second mention merges into the first."""
        user, at, bare = host.rpartition("@")
        given = {key: value for key, value in (fields or {}).items() if value is not None}
        if at and user:
            given.setdefault("user", user)
        if len(bare) > MAX_NAME_LENGTH or not _HOST.fullmatch(bare):
            self.unknown("not a host name", line, host)
            return
        name = node_name(bare)
        if name != bare:
            given.setdefault("ssh", bare)
        if self._hosts.setdefault(name, bare) != bare:
            self.unknown(f"{name!r} would stand for two hosts", line, host)
            return
        if not self._is_valid(name, given, line):
            return
        kept = tuple(group for group in groups if self._is_group(group, line))
        before = self._nodes.get(name, ForeignNode(name=name))
        self._nodes[name] = replace(
            before,
            fields={**before.fields, **given},
            groups=tuple(dict.fromkeys([*before.groups, *kept])),
        )
        if len(self._nodes) > MAX_NAMES:
            raise UsageError(
                f"more than {MAX_NAMES} hosts", id="import.too-large", where=self.source
            )

    def gpus(self, count: int, line: int) -> int | None:
        """``count`` as a number of GPUs, or None with a warning when no machine has as many."""
        if count <= MAX_GPUS:
            return count
        self.warn(f"{count} slots are more than the GPUs of any machine: no figure is taken", line)
        return None

    def imported(self, defaults: Mapping[str, str] | None = None) -> Imported:
        """Everything gathered.

        Raises :class:`UsageError` when there is no host at all, or one that cannot be understood.
        """
        if not self._nodes:
            self._refuse_empty()
        if self._unknown and not self._skip_unknown:
            self._refuse_unknown()
        left_out = [f"{unknown}; left out" for unknown in self._unknown]
        return Imported(
            nodes=tuple(self._nodes.values()),
            defaults=defaults or {},
            warnings=_bounded_lines([*left_out, *self._warnings], MAX_WARNINGS),
            notes=tuple(self._notes),
        )

    def _refuse_empty(self) -> NoReturn:
        alike: dict[str, list[str]] = {}
        for unknown in self._unknown:
            alike.setdefault(unknown.reason, []).append(unknown.where)
        reasons = [
            f"{where[0]}: {reason}" + (f" (as {_others(where[1:])})" if where[1:] else "")
            for reason, where in alike.items()
        ]
        why = "; ".join(_bounded_lines(reasons, MAX_REASONS)) or "it names none"
        remedy = "name the file that holds the hosts, and its format"
        raise UsageError(
            "no host found", id="import.empty", where=self.source, why=why, remedy=remedy
        )

    def _refuse_unknown(self) -> NoReturn:
        lines = [str(unknown) for unknown in self._unknown][:MAX_PROBLEMS]
        if more := [unknown.where for unknown in self._unknown][MAX_PROBLEMS:]:
            lines.append(f"... and {len(more)} more: {_others(more)}")
        count = len(self._unknown)
        what = "1 host is not understood" if count == 1 else f"{count} hosts are not understood"
        raise UsageError(
            "\n".join([what, *(f"  {line}" for line in lines)]),
            id="import.unknown",
            where=self.source,
            remedy="correct the file, or import the other hosts with --skip-unknown",
        )

    def _where(self, line: int) -> str:
        return f"{self.source}:{line}" if line else self.source

    def _is_valid(self, name: str, given: Mapping[str, Field], line: int) -> bool:
        """Whether an inventory accepts every field: a node without one may be another machine."""
        try:
            NodeEntry.model_validate({"name": name, **given})
        except ValidationError as error:
            faults = {str(fault["loc"][0]): fault for fault in error.errors() if fault["loc"]}
            for key in sorted(faults.keys() & given.keys()):
                # Only a rule of the inventory's own says in words what to write instead.
                reason = faults[key].get("ctx", {}).get("error")
                own_words = f": {reason}" if isinstance(reason, ValueError) else ""
                what = f"{_FIELDS.get(key, key)} is not valid{own_words}"
                self.unknown(what, line, f"{name} {key}={given[key]}")
            return False
        return True

    def _is_group(self, group: str, line: int) -> bool:
        if _GROUP.fullmatch(group):
            return True
        self.warn(f"group {group[:80]!r} is not a plain name; left out", line)
        return False


def node_name(host: str) -> str:
    """A name that an inventory accepts for ``host``, which may be an IPv6 address."""
    if is_name(host):
        return host
    return re.sub(r"[^A-Za-z0-9._-]", "-", host).strip("-.") or "node"


def shorten_text(text: str) -> str:
    """At most 80 characters of ``text``."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _others(where: list[str]) -> str:
    """Places of which nothing else is said."""
    more = f" and {len(where) - MAX_PLACES} more" if len(where) > MAX_PLACES else ""
    return ", ".join(where[:MAX_PLACES]) + more


def _bounded_lines(lines: Iterable[str], limit: int) -> tuple[str, ...]:
    """At most ``limit`` of ``lines``, and how many more there are."""
    every = tuple(lines)
    more = (f"... and {len(every) - limit} more",) if len(every) > limit else ()
    return (*every[:limit], *more)


def render_inventory(imported: Imported, name: str, origin: str) -> str:
    """An inventory file's text. Nodes keep their order; neighbours that are alike are folded."""
    lines = [f"# Imported from {json.dumps(origin)[1:-1]}.", f"name: {json.dumps(name)}"]
    if imported.defaults:
        lines.append("defaults:")
        lines += [f"  {key}: {json.dumps(value)}" for key, value in imported.defaults.items()]
    lines.append("nodes:")
    for names, node in _fold_nodes(imported.nodes):
        lines.append(f"  - name: {json.dumps(names)}")
        lines += [f"    {key}: {json.dumps(value)}" for key, value in node.fields.items()]
        if node.groups:
            lines.append(f"    groups: {json.dumps(list(node.groups))}")
    return "\n".join(lines) + "\n"


def _fold_nodes(nodes: Iterable[ForeignNode]) -> Iterator[tuple[str, ForeignNode]]:
    """Names with the fields they share; a host name of its own keeps a node apart."""
    for _, run in itertools.groupby(nodes, key=_shared_fields):
        alike = list(run)
        for names in _ascending_runs([node.name for node in alike]):
            together = fold_nodeset(names)
            exact = "ssh" not in alike[0].fields and expand_nodeset(together) == tuple(names)
            terms = [term for _, term in split_terms(together)] if exact else names
            yield from ((term, alike[0]) for term in terms)


def _shared_fields(node: ForeignNode) -> tuple[str, ...]:
    return (json.dumps(node.fields, sort_keys=True), *node.groups)


def _ascending_runs(names: Iterable[str]) -> list[list[str]]:
    """``names`` cut where the natural order breaks, for folding sorts."""
    runs: list[list[str]] = []
    for name in names:
        if runs and natural_key(runs[-1][-1]) < natural_key(name):
            runs[-1].append(name)
        else:
            runs.append([name])
    return runs
