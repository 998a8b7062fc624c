"""Ansible inventories, INI and YAML: hosts with ranges, groups, children, connection variables."""

from __future__ import annotations

import itertools
import re
import shlex
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.core.base.nodeset import MAX_NAMES
from orchestrator.parsing.importers.foreign_nodes import Collector, Imported, lines_of
from orchestrator.parsing.inputs.yaml_source import parse_yaml

_RANGE = re.compile(r"\[([0-9]+|[A-Za-z]):([0-9]+|[A-Za-z])(?::([0-9]+))?\]")
_SECTION = re.compile(r"\[([^\]:]+)(?::(children|vars))?\]")
_MAX_DEPTH = 32
_BUILTIN_GROUPS = frozenset({"all", "ungrouped"})
_FIELDS = {
    "ansible_host": "ssh",
    "ansible_ssh_host": "ssh",
    "ansible_user": "user",
    "ansible_ssh_user": "user",
    "ansible_private_key_file": "key",
    "ansible_ssh_private_key_file": "key",
    "ansible_python_interpreter": "python",
}
_ARGUMENTS = frozenset({"ansible_ssh_common_args", "ansible_ssh_extra_args"})
_QUIET = frozenset({"ansible_connection", "ansible_port", "ansible_ssh_port"})


@dataclass(slots=True)
class _Group:
    hosts: dict[str, dict[str, str]] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)


Groups = dict[str, _Group]


def parse_ansible(text: str, source: str) -> Imported:
    """An inventory in either format. Variables of a group reach its children; the nearer wins.

    Raises :class:`UsageError` when it cannot be read or no host is found.
    """
    found = Collector(source)
    is_yaml = source.endswith((".yaml", ".yml")) or re.search(r"^all:\s*$", text, re.MULTILINE)
    groups = _read_yaml(text, found) if is_yaml else _read_ini(text, found)
    members = _memberships(groups)
    for host, variables in _host_variables(groups, members).items():
        own = [name for name in members[host] if name not in _BUILTIN_GROUPS]
        found.add(host, groups=own, fields=_fields(variables, host, found))
    return found.imported()


def _read_ini(text: str, found: Collector) -> Groups:
    groups: Groups = {"all": _Group()}
    name, kind = "ungrouped", ""
    for line, content in lines_of(re.sub(r"(?m)^\s*;.*$", "", text)):
        section = _SECTION.fullmatch(content)
        if section is not None:
            name, kind = section[1].strip(), section[2] or ""
            groups.setdefault(name, _Group())
            continue
        group = groups.setdefault(name, _Group())
        if kind == "children":
            group.children[content] = None
            groups.setdefault(content, _Group())
        elif kind == "vars":
            key, _, value = content.partition("=")
            group.variables[key.strip()] = _unquoted(value.strip())
        else:
            _add_host_line(group, content, line, found)
    return groups


def _add_host_line(group: _Group, content: str, line: int, found: Collector) -> None:
    try:
        pattern, *words = shlex.split(content)
    except ValueError:
        found.warn("unbalanced quotes; line left out", line)
        return
    variables = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            variables[key] = value
        else:
            found.warn(f"{word[:80]!r} is not key=value", line)
    _add_hosts(group, pattern, variables, found)


def _read_yaml(text: str, found: Collector) -> Groups:
    document = parse_yaml(text, found.source)
    for problem in document.problems:
        found.warn(problem.what, problem.place.line)
    groups: Groups = {"all": _Group()}
    root = document.root.plain()
    for name, content in (root if isinstance(root, dict) else {}).items():
        _read_yaml_group(groups, name, content, found, 0)
    return groups


def _read_yaml_group(
    groups: Groups, name: str, content: object, found: Collector, depth: int
) -> None:
    group = groups.setdefault(name, _Group())
    if content is None or depth > _MAX_DEPTH:
        return
    if not isinstance(content, dict):
        found.warn(f"group {name[:80]!r} is not a mapping")
        return
    for key in content.keys() - {"hosts", "vars", "children"}:
        found.warn(f"key {key[:80]!r} of group {name[:80]!r} is not understood")
    group.variables |= _texts(content.get("vars"))
    for pattern, variables in _mapping(content.get("hosts")).items():
        _add_hosts(group, pattern, _texts(variables), found)
    for child, inner in _mapping(content.get("children")).items():
        group.children[child] = None
        _read_yaml_group(groups, child, inner, found, depth + 1)


def _add_hosts(group: _Group, pattern: str, variables: Mapping[str, str], found: Collector) -> None:
    names = _expand_ranges(pattern)
    if names is None:
        found.warn(f"{pattern[:80]!r} is not a host or a range of at most {MAX_NAMES}; left out")
        return
    for name in names:
        host, colon, port = name.rpartition(":")
        has_port = bool(colon) and port.isdecimal() and ":" not in host
        extra = {"ansible_port": port} if has_port else {}
        group.hosts.setdefault(host if has_port else name, {}).update({**extra, **variables})


def _expand_ranges(pattern: str) -> list[str] | None:
    """``web[01:10:2].lan`` as names; None when a range is wrong or too large."""
    pieces: list[list[str]] = []
    at = total = 0
    for match in _RANGE.finditer(pattern):
        values = _range(match[1], match[2], int(match[3] or "1"))
        if not values:
            return None
        pieces += [[pattern[at : match.start()]], values]
        total = max(total, 1) * len(values)
        if total > MAX_NAMES:
            return None
        at = match.end()
    pieces.append([pattern[at:]])
    return ["".join(parts) for parts in itertools.product(*pieces)]


def _range(low: str, high: str, step: int) -> list[str]:
    letters = string.ascii_letters
    if step < 1 or len(low) > 9 or len(high) > 9 or low.isdecimal() != high.isdecimal():
        return []
    if not low.isdecimal():
        return list(letters[letters.index(low) : letters.index(high) + 1 : step])
    numbers = range(int(low), int(high) + 1, step)
    width = len(low) if low.startswith("0") else 1
    return [f"{number:0{width}d}" for number in numbers] if len(numbers) <= MAX_NAMES else []


def _memberships(groups: Groups) -> dict[str, list[str]]:
    """Host -> the groups it is in, farthest ancestor first: the order in which variables apply."""
    parents: dict[str, list[str]] = {}
    for name, group in groups.items():
        for child in group.children:
            parents.setdefault(child, []).append(name)
    members: dict[str, list[str]] = {}
    for name, group in groups.items():
        lineage = list(dict.fromkeys(["all", *reversed(list(_ancestors(name, parents)))]))
        for host in group.hosts:
            known = members.setdefault(host, [])
            known += [ancestor for ancestor in lineage if ancestor not in known]
    return members


def _ancestors(name: str, parents: Mapping[str, list[str]]) -> Iterator[str]:
    seen: set[str] = set()
    queue = [name]
    while queue:
        current = queue.pop(0)
        if current not in seen:
            seen.add(current)
            yield current
            queue += parents.get(current, [])


def _host_variables(groups: Groups, members: Mapping[str, list[str]]) -> dict[str, dict[str, str]]:
    result: dict[str, dict[str, str]] = {}
    for host, lineage in members.items():
        result[host] = {}
        for name in lineage:
            result[host] |= groups[name].variables
        for name in lineage:
            result[host] |= groups[name].hosts.get(host, {})
    return result


def _fields(variables: Mapping[str, str], host: str, found: Collector) -> dict[str, str | int]:
    fields: dict[str, str | int] = {}
    for key, value in variables.items():
        if key in _FIELDS and value:
            fields[_FIELDS[key]] = value
        elif key in _ARGUMENTS:
            fields |= _jump(value, found)
        elif key not in _QUIET:
            found.warn(f"variable {key[:80]!r} has no meaning here")
    port = variables.get("ansible_port", variables.get("ansible_ssh_port", ""))
    if port.isdecimal():
        fields["port"] = int(port)
    elif port:
        found.warn(f"ansible_port {port[:80]!r} of {host[:80]} is not a number; left out")
    if variables.get("ansible_connection") == "local":
        fields["transport"] = "local"
    if fields.get("ssh") == host:
        del fields["ssh"]
    return fields


def _jump(arguments: str, found: Collector) -> dict[str, str]:
    """The jump host in ssh arguments (``-J host``, ``-o ProxyJump=host``); warns of all others."""
    try:
        words = iter(shlex.split(arguments))
    except ValueError:
        words = iter([arguments])
    jump: dict[str, str] = {}
    for word in words:
        option = next(words, "") if word in ("-o", "-J") else word.removeprefix("-o")
        name, _, value = ("ProxyJump", "=", option) if word == "-J" else option.partition("=")
        if name.lower() == "proxyjump" and value:
            jump = {"jump": value}
        else:
            found.warn(f"ssh argument {option[:80]!r} is left out; ssh_config is the place for it")
    return jump


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> dict[str, str]:
    return {
        key: str(item)
        for key, item in _mapping(value).items()
        if isinstance(item, str | int | float)
    }


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value
