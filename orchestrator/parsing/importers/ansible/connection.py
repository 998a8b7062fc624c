"""Ansible's variables of a connection, as fields of our inventory.

The command line that Ansible would give to ssh is put together in its order and read as ssh reads
it, so that what is given twice counts as there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from orchestrator.parsing.importers.ansible.literals import as_text
from orchestrator.parsing.importers.ansible.model import Value, Variables
from orchestrator.parsing.importers.ansible.plugins import (
    CONNECTION,
    EXECUTABLE,
    KEY_CHECKS,
    KEY_TEXTS,
    PARAMIKO,
    PASSPHRASES,
    PASSWORDS,
    PKCS11,
    PYTHON,
    SSH,
    ConnectionPlugin,
    is_dropped,
)
from orchestrator.parsing.importers.ansible.templates import NotLiteral, fill_in
from orchestrator.parsing.ssh_config.arguments import (
    Setting,
    StatedWay,
    settings_of,
    split_arguments,
    way_of,
)

_DISCOVERED = frozenset({"auto", "auto_silent", "auto_legacy", "auto_legacy_silent"})
_SSH = frozenset({"ssh", "smart"})
_PARAMIKO = frozenset({"paramiko", "paramiko_ssh"})
_TOKEN = re.compile("%([hnpr%])")
_PREFIXES = ("ansible.builtin.", "ansible.legacy.", "ansible.netcommon.", "community.general.")

KEYS_ARE_CHECKED = "host keys are always checked (StrictHostKeyChecking is not taken)"
NO_PASSWORDS = "passwords are never used (ansible_password is not taken): the nodes need a key"
NO_PASSPHRASES = "passphrases of keys are not taken: load the keys into an agent"
_DEFAULT_PORT = "22"


@dataclass(slots=True)
class Connection:
    """What came out for a host: ``fields``, or the reason why it is no node.

    ``unknown``: it cannot be understood. ``elsewhere``: it is reached by other means than ssh.
    ``warnings`` belong to the host, ``remarks`` to the whole file; ``dropped`` are variables of
    Ansible that nothing here reads.
    """

    fields: dict[str, str | int] = field(default_factory=dict)
    unknown: str = ""
    shown: str = ""
    elsewhere: str = ""
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    dropped: tuple[str, ...] = ()


class _Unreachable(Exception):
    """A setting without which the host would be another one."""

    def __init__(self, reason: str, shown: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.shown = shown


def read_connection(host: str, variables: Variables, base: str) -> Connection:
    """How ``host`` is reached. Relative paths are relative to the folder ``base``."""
    result = Connection()
    try:
        _Reading(host, variables, base, result).read()
    except _Unreachable as problem:
        result.unknown, result.shown = problem.reason, problem.shown
    return result


class _Reading:
    """One host's variables on their way into ``result``."""

    def __init__(self, host: str, variables: Variables, base: str, result: Connection) -> None:
        self._host = host
        self._variables = variables
        self._base = base
        self._result = result

    def read(self) -> None:
        plugin = self._plugin()
        if self._result.elsewhere:
            return
        if plugin is not None:
            address = self._needed(plugin.host) or self._host
            way = way_of(self._settings(plugin))
            self._take(way, address)
            self._remark(way)
        self._take_python()
        self._result.dropped = tuple(name for name in self._given_names if is_dropped(name, plugin))

    def _plugin(self) -> ConnectionPlugin | None:
        """None for this machine, and for a host that is not reached by ssh."""
        connection = self._needed(CONNECTION) or "ssh"
        for prefix in _PREFIXES:
            connection = connection.removeprefix(prefix)
        if connection == "local":
            self._result.fields["transport"] = "local"
            return None
        if connection in _PARAMIKO:
            self._result.fields["transport"] = "paramiko"
            return PARAMIKO
        if connection not in _SSH:
            self._result.elsewhere = f"its connection is {connection}, not ssh"
            return None
        return SSH

    def _settings(self, plugin: ConnectionPlugin) -> Iterator[Setting]:
        """The options that the plugin would be given, in their order."""
        for name in plugin.arguments:
            yield from self._arguments(name)
        options = ((plugin.port, "port"), (plugin.key, "identityfile"), (plugin.user, "user"))
        for names, keyword in options:
            text = self._wanted(names, f"ssh_config decides its {keyword}")
            if text:
                yield keyword, text
        for name in plugin.more_arguments:
            yield from self._arguments(name)
        proxy = self._wanted(plugin.proxy, "it will be dialled directly") if plugin.proxy else None
        if proxy:
            yield "proxycommand", proxy

    def _arguments(self, name: str) -> list[Setting]:
        text = self._wanted((name,), "it will be dialled without them")
        try:
            return list(settings_of(split_arguments(text or "")))
        except ValueError:
            raise _Unreachable(f"{name} has quotes that are not closed", text or "") from None

    def _take(self, way: StatedWay, address: str) -> None:
        user, _, host = address.rpartition("@")
        host = way.host or host
        fields = self._result.fields
        if host != self._host:
            fields["ssh"] = host
        if way.user or user:
            fields["user"] = way.user or user
        if way.port is not None:
            fields["port"] = _parse_port(way.port)
        if way.keys:
            fields["key"] = self._local(way.keys[0])
        if way.jump:
            fields["jump"] = self._filled_jump(way, host, way.user or user)
        for name, path in (("ssh_config", way.config), ("known_hosts", way.known_hosts)):
            if path:
                fields[name] = path if path.lower() == "none" else self._local(path)

    def _filled_jump(self, way: StatedWay, host: str, user: str) -> str:
        """The jump host, with what ssh puts in place of ``%h``, ``%n``, ``%p`` and ``%r``."""
        jump = way.jump or ""
        if "%r" in jump and not user:
            raise _Unreachable("its jump host is for %r, the user: give ansible_user", jump)
        tokens = {"h": host, "n": host, "r": user, "p": way.port or _DEFAULT_PORT, "%": "%"}
        return _TOKEN.sub(lambda match: tokens[match[1]], jump)

    def _take_python(self) -> None:
        python = self._wanted(PYTHON, "python3 is used")
        if not python or python in _DISCOVERED:
            return
        words = python.split()
        if len(words) > 1 and PurePosixPath(words[0]).name == "env":
            words = words[1:]
        if len(words) == 1:
            self._result.fields["python"] = words[0]
        else:
            self._warn(f"its interpreter {python!r} is no single program: python3 is used")

    def _remark(self, way: StatedWay) -> None:
        if way.proxy_lost:
            self._warn("its proxy command is not understood: it will be dialled directly")
        if way.jump_lost:
            self._warn(f"of its jump host, not taken: {', '.join(way.jump_lost)}")
        if len(way.keys) > 1:
            self._warn(f"only the first of its keys is tried, not {', '.join(way.keys[1:])}")
        if way.lost:
            self._warn(f"arguments of ssh that are not taken: {', '.join(dict.fromkeys(way.lost))}")
        if any(self._given(name) for name in KEY_TEXTS):
            self._warn("the key that stands in its variables is not taken: give a file")
        if self._given(PKCS11):
            self._warn(f"{PKCS11} is not taken: ssh_config decides its key")
        if self._given(EXECUTABLE):
            self._warn(f"{EXECUTABLE} is not taken: it is reached by this project's ssh")
        for names, remark in ((PASSWORDS, NO_PASSWORDS), (PASSPHRASES, NO_PASSPHRASES)):
            if any(self._given(name) for name in names):
                self._result.remarks.append(remark)
        checks = [self._variables.get(name) for name in KEY_CHECKS]
        if way.unchecked or any(str(check).lower() in ("false", "no", "0") for check in checks):
            self._result.remarks.append(KEYS_ARE_CHECKED)

    def _needed(self, names: tuple[str, ...]) -> str | None:
        """A setting that decides which machine is meant."""
        name, value = self._last(names)
        try:
            text = as_text(fill_in(value, self._variables))
        except NotLiteral as problem:
            raise _Unreachable(f"{name} is {problem}", self._host) from None
        if text is None and value is not None:
            raise _Unreachable(f"{name} is not a single word", self._host)
        return text

    def _wanted(self, names: tuple[str, ...], otherwise: str) -> str | None:
        """A setting that the host can be reached without; ``otherwise`` is what happens then."""
        name, value = self._last(names)
        try:
            text = as_text(fill_in(value, self._variables))
        except NotLiteral as problem:
            self._warn(f"{name} is {problem}: {otherwise}")
            return None
        if text is None and value is not None:
            raise _Unreachable(f"{name} is not a single word", self._host)
        return text

    def _last(self, names: tuple[str, ...]) -> tuple[str, Value]:
        given = [name for name in names if name in self._variables]
        return (given[-1], self._variables[given[-1]]) if given else (names[0], None)

    @property
    def _given_names(self) -> Iterator[str]:
        return (name for name in self._variables if self._given(name))

    def _given(self, name: str) -> bool:
        return self._variables.get(name) not in (None, "")

    def _local(self, path: str) -> str:
        """An absolute path: the inventory that is written may lie in another folder."""
        return path if path.startswith(("/", "~")) else str(PurePosixPath(self._base) / path)

    def _warn(self, text: str) -> None:
        self._result.warnings.append(text)


def _parse_port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise _Unreachable("its port is not a number", text)
    return int(text)
