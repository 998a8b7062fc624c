"""Ansible's INI inventories, line by line as ansible-core's ``ini`` plugin reads them.

What ``#`` means depends on the place: it ends a host's line, even inside a word, but not inside
quotes; in a ``:vars`` section it is part of the value.
"""

from __future__ import annotations

import re
import shlex

from orchestrator.parsing.importers.ansible.host_names import NameProblem, expand_pattern
from orchestrator.parsing.importers.ansible.literals import ini_value
from orchestrator.parsing.importers.ansible.model import (
    PRIORITY,
    UNGROUPED,
    AnsibleInventory,
    Value,
)
from orchestrator.parsing.importers.foreign_nodes import Collector
from orchestrator.parsing.importers.text_lines import split_lines

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_CHILD = re.compile(r"([^:\]\s]+)\s*(?:#.*)?")
HOSTS, CHILDREN, VARS = "hosts", "children", "vars"


def read_ini(text: str, found: Collector) -> AnsibleInventory:
    """The groups and hosts of ``text``; what Ansible would refuse is unknown to ``found``."""
    reader = _IniReader(found)
    for number, line in enumerate(split_lines(text), start=1):
        content = line.strip()
        if content and content[0] not in ";#":
            reader.take(content, number)
    return reader.finish()


class _IniReader:
    """One pass over the lines: each belongs to the section above it."""

    def __init__(self, found: Collector) -> None:
        self._found = found
        self._inventory = AnsibleInventory()
        self._group, self._kind = UNGROUPED, HOSTS
        self._declared = {*self._inventory.groups}
        self._children: list[tuple[str, str, int]] = []
        self._vars: dict[str, int] = {}

    def take(self, content: str, line: int) -> None:
        section = _SECTION.fullmatch(content)
        if section is not None:
            self._begin(section[1], section[2] or HOSTS, line)
        elif content[0] == "[" and content[-1] == "]" and not _is_host(content):
            self._found.unknown("a section is like [group] or [group:vars]", line, content)
        elif self._kind == HOSTS:
            self._add_host(content, line)
        elif self._kind == CHILDREN:
            self._add_child(content, line)
        elif self._kind == VARS:
            self._set_variable(content, line)

    def finish(self) -> AnsibleInventory:
        """Children may be declared below their parents, so they are put in place at the end."""
        for parent, child, line in self._children:
            if child not in self._declared:
                self._found.unknown("a child group that is declared nowhere", line, child)
            elif not self._inventory.add_child(parent, child):
                self._found.unknown("this child makes a circle of groups", line, child)
        for group, line in self._vars.items():
            if group not in self._declared:
                self._found.unknown("variables of a group that is declared nowhere", line, group)
        return self._inventory

    def _begin(self, group: str, kind: str, line: int) -> None:
        self._group, self._kind = group, kind
        self._inventory.add_group(group)
        if kind == VARS:
            self._vars.setdefault(group, line)
        elif kind in (HOSTS, CHILDREN):
            self._declared.add(group)
        else:
            self._found.unknown("a section is hosts, children or vars", line, f"{group}:{kind}")

    def _add_host(self, content: str, line: int) -> None:
        try:
            pattern, *words = shlex.split(content, comments=True)
            expanded = expand_pattern(pattern)
            variables = dict(_parse_assignment(word) for word in words)
        except NameProblem as problem:
            self._found.unknown(str(problem), line, content)
            return
        except ValueError:
            self._found.unknown("quotes that are not closed", line, content)
            return
        for host in expanded.hosts:
            self._inventory.add_host(self._group, host, expanded.port, variables, line)

    def _add_child(self, content: str, line: int) -> None:
        match = _CHILD.fullmatch(content)
        if match is None:
            self._found.unknown("one group a line is expected here", line, content)
        else:
            self._children.append((self._group, match[1], line))

    def _set_variable(self, content: str, line: int) -> None:
        name, equals, text = content.partition("=")
        name, value = name.strip(), ini_value(text.strip())
        if not equals:
            self._found.unknown("name=value is expected here", line, content)
        elif name == PRIORITY:
            self._set_priority(value, line)
        else:
            self._inventory.groups[self._group].variables[name] = value
            if name.startswith("ansible_") and isinstance(value, str) and " #" in value:
                where = "in a :vars section it is part of the value"
                self._found.warn(f"{name} holds a '#': {where}", line)

    def _set_priority(self, value: Value, line: int) -> None:
        try:
            self._inventory.groups[self._group].priority = int(str(value))
        except ValueError:
            self._found.unknown(f"{PRIORITY} is a whole number", line, str(value))


def _parse_assignment(word: str) -> tuple[str, Value]:
    name, equals, text = word.partition("=")
    if not equals:
        raise NameProblem("name=value is expected behind a host, and one host a line")
    return name, ini_value(text)


def _is_host(content: str) -> bool:
    """``[1:3]`` alone is a range."""
    return re.fullmatch(r"\[[0-9a-zA-Z]*:[0-9a-zA-Z]+(:[0-9]+)?\].*", content) is not None
