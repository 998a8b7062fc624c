"""What all importers share: a foreign node, and the inventory text that is written from them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.nodeset import (
    MAX_NAME_LENGTH,
    MAX_NAMES,
    expand,
    fold,
    is_name,
    natural_key,
    split_terms,
)
from orchestrator.parsing.inputs.cluster_schema import NodeEntry

MAX_WARNINGS = 50
MAX_GPUS = 64
Field = str | int | Mapping[str, str | int]
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
    """The result of an importer; ``warnings`` tell what was not understood."""

    nodes: tuple[ForeignNode, ...]
    defaults: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Collector:
    """Gathers nodes by name, in order, and warnings; both bounded."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._nodes: dict[str, ForeignNode] = {}
        self._warnings: dict[str, str] = {}  # text -> place

    def warn(self, text: str, line: int = 0) -> None:
        where = f"{self.source}:{line}" if line else self.source
        if len(self._warnings) < MAX_WARNINGS:
            self._warnings[f"{where}: {text}"] = where

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
            self.warn(f"{host[:80]!r} is not a host name; left out", line)
            return
        name = (
            bare if is_name(bare) else re.sub(r"[^A-Za-z0-9._-]", "-", bare).strip("-.") or "node"
        )
        if name != bare:
            given.setdefault("ssh", bare)
        given = self._valid(name, given, line)
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
        self.warn(f"{count} slots are no number of GPUs; left out", line)
        return None

    def imported(self, defaults: Mapping[str, str] | None = None) -> Imported:
        """Everything gathered. Raises :class:`UsageError` when there is no host at all."""
        if not self._nodes:
            # Places only: the file may be something else altogether, and private.
            places = itertools.islice(dict.fromkeys(self._warnings.values()), 3)
            why = f"not understood: {', '.join(places)}" if self._warnings else ""
            raise UsageError("no host found", id="import.empty", where=self.source, why=why)
        return Imported(
            nodes=tuple(self._nodes.values()),
            defaults=defaults or {},
            warnings=tuple(self._warnings),
        )

    def _valid(self, name: str, given: dict[str, Field], line: int) -> dict[str, Field]:
        """``given`` without the fields that an inventory would refuse."""
        try:
            NodeEntry.model_validate({"name": name, **given})
        except ValidationError as error:
            wrong = {str(details["loc"][0]) for details in error.errors() if details["loc"]}
            for key in sorted(wrong & given.keys()):
                self.warn(f"{key} {str(given[key])[:80]!r} of {name} is left out", line)
            return {key: value for key, value in given.items() if key not in wrong}
        return given

    def _is_group(self, group: str, line: int) -> bool:
        if _GROUP.fullmatch(group):
            return True
        self.warn(f"group {group[:80]!r} is not a plain name; left out", line)
        return False


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without ``#`` comments and blanks at either end; none is empty."""
    for number, line in enumerate(text.splitlines(), start=1):
        content = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if content:
            yield number, content


def render(imported: Imported, name: str, origin: str) -> str:
    """An inventory file's text. Nodes keep their order; neighbours that are alike are folded."""
    lines = [f"# Imported from {json.dumps(origin)[1:-1]}.", f"name: {json.dumps(name)}"]
    if imported.defaults:
        lines.append("defaults:")
        lines += [f"  {key}: {json.dumps(value)}" for key, value in imported.defaults.items()]
    lines.append("nodes:")
    for names, node in _folded(imported.nodes):
        lines.append(f"  - name: {json.dumps(names)}")
        lines += [f"    {key}: {json.dumps(value)}" for key, value in node.fields.items()]
        if node.groups:
            lines.append(f"    groups: {json.dumps(list(node.groups))}")
    return "\n".join(lines) + "\n"


def _folded(nodes: Iterable[ForeignNode]) -> Iterator[tuple[str, ForeignNode]]:
    """Names with the fields they share; a host name of its own keeps a node apart."""
    for _, run in itertools.groupby(nodes, key=_alike):
        alike = list(run)
        for names in _ascending([node.name for node in alike]):
            together = fold(names)
            exact = "ssh" not in alike[0].fields and expand(together) == tuple(names)
            terms = [term for _, term in split_terms(together)] if exact else names
            yield from ((term, alike[0]) for term in terms)


def _alike(node: ForeignNode) -> tuple[str, ...]:
    return (json.dumps(node.fields, sort_keys=True), *node.groups)


def _ascending(names: Iterable[str]) -> list[list[str]]:
    """``names`` cut where the natural order breaks, for folding sorts."""
    runs: list[list[str]] = []
    for name in names:
        if runs and natural_key(runs[-1][-1]) < natural_key(name):
            runs[-1].append(name)
        else:
            runs.append([name])
    return runs
