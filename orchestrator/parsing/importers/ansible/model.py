"""Ansible's inventory: groups in groups, hosts in groups, and the order in which variables count.

As ansible-core 2.19 builds it (``inventory/data.py``, ``inventory/group.py``, ``vars/manager.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

ALL, UNGROUPED = "all", "ungrouped"
PRIORITY = "ansible_group_priority"

Scalar = str | int | float | bool | None


class Encrypted:
    """A value that only the holder of a vault's password can read."""


class Plain(str):
    """Text that holds no template, whatever it looks like (YAML's ``!unsafe``)."""

    __slots__ = ()


Value = Scalar | Encrypted | list[object] | dict[str, object]
Variables = Mapping[str, Value]


@dataclass(slots=True)
class AnsibleGroup:
    """A group: hosts that are named in it, groups below it, its variables."""

    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    variables: dict[str, Value] = field(default_factory=dict)
    priority: int = 1


class AnsibleInventory:
    """What a reader builds, in the order of the file. ``all`` and ``ungrouped`` always exist."""

    def __init__(self) -> None:
        self.groups: dict[str, AnsibleGroup] = {ALL: AnsibleGroup(), UNGROUPED: AnsibleGroup()}
        self.hosts: dict[str, dict[str, Value]] = {}
        self.lines: dict[str, int] = {}
        self.shared: dict[str, int] = {}  # hosts whose variables a group of their name took

    def add_group(self, name: str) -> None:
        self.groups.setdefault(name, AnsibleGroup())

    def add_host(
        self, group: str, name: str, port: int | None, variables: Variables, line: int
    ) -> None:
        """Put a host into a group. A port behind its name counts where it is named first only.

        Variables of a host that is called as a group above it are that group's: Ansible sets
        them by name, and looks among the groups first.
        """
        if name not in self.hosts:
            self.hosts[name] = {"ansible_port": port} if port else {}
            self.lines[name] = line
        owner = self.groups[name].variables if name in self.groups else self.hosts[name]
        owner.update(variables)
        if variables and name in self.groups:
            self.shared[name] = line
        self.groups[group].hosts[name] = None

    def add_child(self, parent: str, child: str) -> bool:
        """Put a group below another; False when that would make a circle."""
        if child in (parent, ALL) or parent in self._descendants(child):
            return False
        self.groups[parent].children[child] = None
        return True

    def _descendants(self, name: str) -> set[str]:
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            for child in self.groups[waiting.pop()].children:
                if child not in seen:
                    seen.add(child)
                    waiting.append(child)
        return seen


class Lineage:
    """Which groups a finished inventory's hosts are in, and in which order these count."""

    def __init__(self, inventory: AnsibleInventory) -> None:
        self._groups = inventory.groups
        self._parents: dict[str, list[str]] = {name: [] for name in self._groups}
        for name, group in self._groups.items():
            for child in group.children:
                self._parents[child].append(name)
        self._depths = self._count_depths()
        self._of_host: dict[str, set[str]] = {}
        for name, group in self._groups.items():
            above = {name, *self._ancestors(name)}
            for host in group.hosts:
                self._of_host.setdefault(host, set()).update(above)

    def groups_of(self, host: str) -> list[str]:
        """The groups that ``host`` is in, but for ``all``, the one that counts most last. Who is
        named in ``ungrouped`` and in another group is not in it; a group below it is.

        The deeper group counts more; among equals the one of higher priority, then the one whose
        name comes later in the alphabet.
        """
        names = self._of_host.get(host, set()) - {ALL}
        if len(names) > 1 and host in self._groups[UNGROUPED].hosts:
            names.discard(UNGROUPED)
        return sorted(names or {UNGROUPED}, key=self._rank)

    def _rank(self, name: str) -> tuple[int, int, str]:
        return self._depths[name], self._groups[name].priority, name

    def _ancestors(self, name: str) -> Iterator[str]:
        seen = {name}
        waiting = [name]
        while waiting:
            for parent in self._parents[waiting.pop()]:
                if parent not in seen:
                    seen.add(parent)
                    waiting.append(parent)
                    yield parent

    def _count_depths(self) -> dict[str, int]:
        """Steps from ``all`` on the longest way; a group without parents is one step below it."""
        depths = {name: 0 if name == ALL else 1 for name in self._groups}
        missing = {name: len(parents) for name, parents in self._parents.items()}
        waiting = [name for name, count in missing.items() if not count]
        while waiting:
            name = waiting.pop()
            for child in self._groups[name].children:
                depths[child] = max(depths[child], depths[name] + 1)
                missing[child] -= 1
                if not missing[child]:
                    waiting.append(child)
        return depths


def merge_layers(layers: Iterable[Variables]) -> dict[str, Value]:
    """Variables of several layers: a later layer replaces what an earlier one says."""
    result: dict[str, Value] = {}
    for layer in layers:
        result.update(layer)
    return result
