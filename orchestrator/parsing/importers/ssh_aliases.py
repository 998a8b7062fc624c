"""An OpenSSH client configuration: every alias that is no pattern becomes a node."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from orchestrator.core.base.errors import SourceLocation, UsageError
from orchestrator.parsing.importers.foreign_nodes import Collector, Imported
from orchestrator.parsing.ssh_config.arguments import way_of
from orchestrator.parsing.ssh_config.directives import Directive, parse_directives
from orchestrator.parsing.ssh_config.hops import parse_hops

# OpenSSH reads includes 16 levels deep.
MAX_INCLUDE_DEPTH = 16
MAX_FILES = 1000
MAX_PLACES = 3
_PATTERN = set("*?!")

Include = Callable[[str], Iterable[tuple[str, str]]]


def parse_ssh_config(
    text: str,
    source: str,
    include: Include,
    ssh_config: str | None = None,
    *,
    skip_unknown: bool = False,
) -> Imported:
    """Aliases only: user, port, key and jump host stay where they are, in the ssh_config. An alias
    that another host's ``ProxyJump`` names, or its ``ProxyCommand``, is no node.

    ``include`` returns (name, text) of the files that an Include pattern matches. ``ssh_config`` is
    put into the inventory's defaults when it is not the file that SSH reads anyway. Raises
    :class:`UsageError` when no alias is found or one is no host name, and for a file that ``ssh``
    refuses.
    """
    reader = _AliasReader(source, include, skip_unknown=skip_unknown)
    reader.read(text, source, 0)
    return reader.imported({"ssh_config": ssh_config} if ssh_config else None)


class _AliasReader:
    def __init__(self, source: str, include: Include, *, skip_unknown: bool) -> None:
        self._source = source
        self._found = Collector(source, skip_unknown=skip_unknown)
        self._include = include
        self._files = 0
        self._aliases: dict[str, SourceLocation] = {}
        self._patterns: list[SourceLocation] = []
        self._jump_hosts: dict[str, SourceLocation] = {}

    def read(self, text: str, source: str, depth: int) -> None:
        self._files += 1
        for directive in parse_directives(text, source):
            match directive.keyword:
                case "host":
                    self._take_aliases(directive)
                case "proxyjump" | "proxycommand" if directive.text:
                    for host in _jump_hosts_of(directive):
                        self._jump_hosts.setdefault(host, directive.place)
                case "include":
                    for pattern in directive.words:
                        self._follow(pattern, directive.place, depth + 1)

    def _take_aliases(self, directive: Directive) -> None:
        names = [word for word in directive.words if not set(word) & _PATTERN]
        for name in names:
            self._aliases.setdefault(name, directive.place)
        if not names:
            self._patterns.append(directive.place)

    def _follow(self, pattern: str, place: SourceLocation, depth: int) -> None:
        if depth > MAX_INCLUDE_DEPTH:
            self._warn(f"Include {pattern} is nested too deep; left out", place)
            return
        for name, text in self._include(pattern):
            if self._files >= MAX_FILES:
                self._warn(f"more than {MAX_FILES} files are included; the rest is left out", place)
                return
            self.read(text, name, depth)

    def imported(self, defaults: dict[str, str] | None) -> Imported:
        if not self._aliases:
            raise self._no_host()
        jumps = self._aliases.keys() & self._jump_hosts.keys()
        nodes = {name: at for name, at in self._aliases.items() if name not in jumps}
        for name, place in (nodes or self._aliases).items():
            self._found.source = place.file
            self._found.add(name, place.line)
        for name in sorted(jumps) if nodes else ():
            what = (
                f"{name[:80]} is left out: it is the jump host of others ({self._jump_hosts[name]})"
            )
            self._warn(f"{what}; add it if it is a node, too", self._aliases[name])
        self._found.source = self._source
        self._found.warn(
            "all other aliases became nodes; remove those that are none, such as a Git server"
            if jumps and nodes
            else "every alias became a node; remove those that are none, such as a Git server"
        )
        return self._found.imported(defaults)

    def _warn(self, text: str, place: SourceLocation) -> None:
        self._found.source = place.file
        self._found.warn(text, place.line)

    def _no_host(self) -> UsageError:
        places = ", ".join(map(str, self._patterns[:MAX_PLACES]))
        why = f"patterns alone, no name: {places}" if places else "it has no 'Host' line"
        return UsageError(
            "no host found",
            id="import.empty",
            where=self._source,
            why=why,
            remedy="write the names yourself, such as nodes: ['gpu-[01-16]']; ssh knows what fits "
            "a pattern, not which names there are",
        )


def _jump_hosts_of(directive: Directive) -> tuple[str, ...]:
    """The hosts of ``ProxyJump``, and of a ``ProxyCommand`` that is ssh through a host."""
    if directive.keyword == "proxyjump":
        return tuple(hop.host for hop in parse_hops(directive.text))
    jump = way_of([(directive.keyword, directive.text)]).jump
    try:
        return tuple(hop.host for hop in parse_hops(jump)) if jump else ()
    except ValueError:
        return ()  # the shell's line says more than a host
