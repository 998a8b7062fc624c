"""Ansible's YAML and JSON: inventories, and the files of ``group_vars`` and ``host_vars``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.importers.ansible.host_names import NameProblem, expand_pattern
from orchestrator.parsing.importers.ansible.literals import yaml_value
from orchestrator.parsing.importers.ansible.model import (
    PRIORITY,
    AnsibleInventory,
    Encrypted,
    Plain,
    Value,
)
from orchestrator.parsing.importers.foreign_nodes import Collector, shorten_text
from orchestrator.parsing.inputs.yaml_source import Dialect, Document, Tagged, parse_yaml

VAULT_TAGS = frozenset({"!vault", "!vault-encrypted"})
_DIALECT = Dialect(
    yaml_value, merges=True, tags=VAULT_TAGS | {"!unsafe", "tag:yaml.org,2002:str", "!"}
)
_MAX_DEPTH = 32
_SECTIONS = ("vars", "children", "hosts")


@dataclass(frozen=True, slots=True)
class Mapped:
    """A file's top mapping, and what was wrong with it: (line, text)."""

    data: dict[str, Value]
    document: Document | None
    problems: tuple[tuple[int, str], ...] = ()

    def line(self, *path: str) -> int:
        """Where the key at ``path`` stands; 0 where that is not known."""
        return self.document.place(path, key=True).line if self.document else 0


def read_mapping(text: str, source: str) -> Mapped:
    """The mapping that a YAML or JSON file holds; an empty file holds none.

    Raises :class:`UsageError` for text that is neither, or no mapping.
    """
    as_json = _read_json(text)
    if as_json is not None:
        return Mapped(as_json, None)
    document = parse_yaml(text, source, _DIALECT)
    problems = tuple((problem.place.line, problem.what) for problem in document.problems)
    data = _plain_data(document.root.plain())
    if data is None:
        return Mapped({}, document, problems)
    if not isinstance(data, dict):
        what = "a mapping is expected at the top"
        raise UsageError(what, id="import.not-mapping", where=source)
    return Mapped({key: _plain_data(value) for key, value in data.items()}, document, problems)


def read_yaml(text: str, found: Collector) -> AnsibleInventory:
    """The groups and hosts of ``text``; what Ansible would refuse is unknown to ``found``.

    Raises :class:`UsageError` for what is no inventory.
    """
    mapped = read_mapping(text, found.source)
    _refuse_dynamic(mapped.data, found.source)
    for line, what in mapped.problems:
        found.warn(what, line)
    reader = _YamlReader(found, mapped)
    for name, content in mapped.data.items():
        reader.read_group(name, content, ())
    return reader.inventory


def _read_json(text: str) -> dict[str, Value] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return {key: _plain_data(value) for key, value in data.items()}


def _refuse_dynamic(data: Mapping[str, Value], source: str) -> None:
    remedy = "import the output of: ansible-inventory -i FILE --list --yaml"
    if isinstance(data.get("plugin"), str):
        what = "the configuration of an inventory plugin, which asks a service for the hosts"
        raise UsageError(what, id="import.other-kind", where=source, remedy=remedy)
    if "_meta" in data:
        what = "the output of a dynamic inventory, which Ansible reads from a program only"
        raise UsageError(what, id="import.other-kind", where=source, remedy=remedy)


class _YamlReader:
    """Walks the groups. Odd shapes mean what they mean to Ansible, or are unknown."""

    def __init__(self, found: Collector, mapped: Mapped) -> None:
        self._found = found
        self._mapped = mapped
        self.inventory = AnsibleInventory()

    def read_group(self, name: str, content: Value, path: tuple[str, ...]) -> bool:
        """Whether ``name`` is a group now."""
        path = (*path, name)
        line = self._mapped.line(*path)
        if isinstance(content, list) and content:
            self._found.unknown("a group is a mapping, with its hosts below 'hosts:'", line, name)
            return False
        if not isinstance(content, dict | None):
            self._found.warn("a group is a mapping; this one is left out", line)
            return False
        self.inventory.add_group(name)
        for key, section in (content or {}).items():
            if key not in _SECTIONS:
                at = self._mapped.line(*path, key)
                self._found.warn(f"key {shorten_text(key)!r} of a group has no meaning", at)
            elif len(path) <= 2 * _MAX_DEPTH:
                self._read_section(name, key, _plain_data(section), (*path, key))
        return True

    def _read_section(self, group: str, kind: str, section: Value, path: tuple[str, ...]) -> None:
        entries = {section: None} if isinstance(section, str) else section
        if entries is None:
            return
        if not isinstance(entries, dict):
            what = f"{kind} of a group is a mapping"
            self._found.unknown(what, self._mapped.line(*path), group)
        elif kind == "vars":
            self._set_variables(group, entries, path)
        elif kind == "children":
            for child, content in entries.items():
                self._add_child(group, child, _plain_data(content), path)
        else:
            for pattern, variables in entries.items():
                self._add_host(
                    group, pattern, _plain_data(variables), self._mapped.line(*path, pattern)
                )

    def _set_variables(
        self, group: str, variables: Mapping[str, object], path: tuple[str, ...]
    ) -> None:
        values = {name: _plain_data(value) for name, value in variables.items()}
        priority = values.pop(PRIORITY, self.inventory.groups[group].priority)
        self.inventory.groups[group].variables.update(values)
        try:
            self.inventory.groups[group].priority = int(str(priority))
        except ValueError:
            line = self._mapped.line(*path, PRIORITY)
            self._found.unknown(f"{PRIORITY} is a whole number", line, str(priority))

    def _add_child(self, group: str, child: str, content: Value, path: tuple[str, ...]) -> None:
        line = self._mapped.line(*path, child)
        if not self.read_group(child, content, path):
            self._found.unknown("a child group is a mapping", line, child)
        elif not self.inventory.add_child(group, child):
            self._found.unknown("this child makes a circle of groups", line, child)

    def _add_host(self, group: str, pattern: str, variables: Value, line: int) -> None:
        if not variables:  # also false, 0 and an empty list, as for Ansible
            variables = {}
        if not isinstance(variables, dict):
            self._found.unknown("a host's variables are a mapping", line, pattern)
            return
        values = {key: _plain_data(value) for key, value in variables.items()}
        try:
            expanded = expand_pattern(pattern)
        except NameProblem as problem:
            self._found.unknown(str(problem), line, pattern)
            return
        for host in expanded.hosts:
            self.inventory.add_host(group, host, expanded.port, values, line)


def _plain_data(data: object) -> Value:
    match data:
        case Tagged(tag=tag, text=text):
            return Encrypted() if tag in VAULT_TAGS else _untagged_text(tag, text)
        case dict():
            return {str(key): _plain_data(value) for key, value in data.items()}
        case list():
            return [_plain_data(item) for item in data]
        case None | bool() | int() | float() | str() | Encrypted():
            return data
        case _:
            return str(data)


def _untagged_text(tag: str, text: str) -> str:
    return Plain(text) if tag == "!unsafe" else text
