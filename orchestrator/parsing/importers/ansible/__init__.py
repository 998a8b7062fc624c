"""Ansible inventories: INI, YAML and JSON, with ``group_vars`` and ``host_vars`` beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.importers.ansible.connection import read_connection
from orchestrator.parsing.importers.ansible.ini import read_ini
from orchestrator.parsing.importers.ansible.model import (
    ALL,
    PRIORITY,
    UNGROUPED,
    AnsibleInventory,
    Lineage,
    Value,
    Variables,
    merge_layers,
)
from orchestrator.parsing.importers.ansible.templates import magic_variables
from orchestrator.parsing.importers.ansible.yaml_form import read_mapping, read_yaml
from orchestrator.parsing.importers.foreign_nodes import Collector, Imported, shorten_text
from orchestrator.parsing.importers.recognise import is_yaml, refuse_other

_MAX_NAMES = 60
_VAULT = "$ANSIBLE_VAULT;"

# The files of ``group_vars`` or ``host_vars`` for a name: (file, text) of each, in Ansible's order.
FindVars = Callable[[str, str], Iterable[tuple[str, str]]]


def _no_vars(kind: str, name: str) -> Iterable[tuple[str, str]]:  # noqa: ARG001 - a FindVars
    return ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What Ansible sees beside the inventory.

    ``file`` is the inventory's absolute path, None for standard input; ``base`` the folder that
    Ansible would be started in; ``find_vars`` reads the files of variables.
    """

    base: str = "/"
    file: str | None = None
    find_vars: FindVars = _no_vars


def parse_ansible(
    text: str, source: str, around: Surroundings | None = None, *, skip_unknown: bool = False
) -> Imported:
    """An inventory in any of its forms, found by content. Hosts get what Ansible's ssh would.

    Raises :class:`UsageError` when it cannot be read, no host is found, or one is not understood.
    """
    refuse_other(text, source, "ansible")
    found = Collector(source, skip_unknown=skip_unknown)
    _Hosts(read_inventory(text, found), around or Surroundings(), found).add_all()
    return found.imported()


def read_inventory(text: str, found: Collector) -> AnsibleInventory:
    """Groups and hosts of ``text``, which is not empty; its form is found by content."""
    return read_yaml(text, found) if is_yaml(text) else read_ini(text, found)


def resolve_variables(
    inventory: AnsibleInventory, find_vars: Callable[[str, str], Iterable[Variables]]
) -> Iterator[tuple[str, list[str], dict[str, Value]]]:
    """(host, its groups, its variables) in the order of the inventory."""
    lineage = Lineage(inventory)
    for host, own in inventory.hosts.items():
        groups = lineage.groups_of(host)
        layers: list[Variables] = [inventory.groups[name].variables for name in (ALL, *groups)]
        for name in (ALL, *groups):
            layers += find_vars("group_vars", name)
        yield host, groups, merge_layers([*layers, own, *find_vars("host_vars", host)])


class _Hosts:
    """Brings each host with its variables into a collector."""

    def __init__(self, inventory: AnsibleInventory, around: Surroundings, found: Collector) -> None:
        self._inventory = inventory
        self._around = around
        self._found = found
        self._files: dict[tuple[str, str], list[Variables]] = {}
        self._other: dict[str, None] = {}
        self._dropped: dict[str, None] = {}

    def add_all(self) -> None:
        for name, line in self._inventory.shared.items():
            what = "is a host and a group: Ansible gives what stands behind the host to the group"
            self._found.warn(f"{shorten_text(name)} {what}", line)
        for host, groups, variables in resolve_variables(self._inventory, self._read_vars):
            self._add(host, groups, variables)
        self._tell("variables of Ansible that are not taken", self._dropped)
        self._tell("variables that mean nothing here", self._other)

    def _tell(self, what: str, variables: Iterable[str]) -> None:
        names = [shorten_text(name) for name in variables]
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        if names:
            self._found.warn(f"{what}: {', '.join(names[:_MAX_NAMES])}{more}")

    def _add(self, host: str, groups: list[str], variables: Variables) -> None:
        line = self._inventory.lines[host]
        file = self._around.file
        folder = str(PurePosixPath(file).parent) if file else None
        known = {**variables, **magic_variables(host, folder, file)}
        connection = read_connection(host, known, self._around.base)
        if connection.unknown:
            self._found.unknown(connection.unknown, line, connection.shown)
            return
        if connection.elsewhere:
            self._found.warn(f"{shorten_text(host)} is left out: {connection.elsewhere}", line)
            return
        own = [name for name in groups if name != UNGROUPED]
        self._found.add(host, line, groups=own, fields=connection.fields)
        for text in connection.warnings:
            self._found.warn(f"{shorten_text(host)}: {text}", line)
        for text in connection.remarks:
            self._found.warn(text)
        self._dropped |= dict.fromkeys(connection.dropped)
        self._other |= {name: None for name in variables if not name.startswith("ansible_")}

    def _read_vars(self, kind: str, name: str) -> list[Variables]:
        if (kind, name) not in self._files:
            self._files[kind, name] = [
                variables
                for file, text in self._around.find_vars(kind, name)
                if (variables := self._variables(file, text)) is not None
            ]
        return self._files[kind, name]

    def _variables(self, file: str, text: str) -> Variables | None:
        if text.startswith(_VAULT):
            self._found.warn(f"{file} is encrypted by Ansible Vault: nothing of it is taken")
            return None
        try:
            mapping = read_mapping(text, file)
        except UsageError as problem:
            self._found.unknown(f"{problem.where}: {problem.what}")
            return None
        for line, what in mapping.problems:
            self._found.warn(f"{file}:{line}: {what}")
        if PRIORITY in mapping.data:
            self._found.warn(f"{file}: {PRIORITY} counts in the inventory itself only")
        return mapping.data
