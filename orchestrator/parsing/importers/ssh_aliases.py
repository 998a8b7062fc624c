"""An OpenSSH client configuration: every alias that is no pattern becomes a node."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable

from orchestrator.parsing.importers.foreign_nodes import Collector, Imported

# OpenSSH reads includes 16 levels deep.
MAX_INCLUDE_DEPTH = 16
MAX_FILES = 1000

Include = Callable[[str], Iterable[tuple[str, str]]]


def parse_ssh_config(
    text: str, source: str, include: Include, ssh_config: str | None = None
) -> Imported:
    """Aliases only: user, port, key and jump host stay where they are, in the ssh_config.

    ``include`` returns (name, text) of the files that an Include pattern matches. ``ssh_config`` is
    put into the inventory's defaults when it is not the file that SSH reads anyway. Raises
    :class:`UsageError` when no alias is found.
    """
    reader = _Reader(source, include)
    reader.read(text, source, 0)
    return reader.found.imported({"ssh_config": ssh_config} if ssh_config else None)


class _Reader:
    def __init__(self, source: str, include: Include) -> None:
        self.found = Collector(source)
        self._include = include
        self._files = 0

    def read(self, text: str, source: str, depth: int) -> None:
        self._files += 1
        outer, self.found.source = self.found.source, source
        for number, line in enumerate(text.splitlines(), start=1):
            words = self._words(line, number)
            keyword = words[0].lower() if words else ""
            if keyword == "host":
                for alias in words[1:]:
                    if not set(alias) & set("*?!"):
                        self.found.add(alias, number)
            elif keyword == "include":
                for pattern in words[1:]:
                    self._follow(pattern, number, depth + 1)
        self.found.source = outer

    def _follow(self, pattern: str, line: int, depth: int) -> None:
        if depth > MAX_INCLUDE_DEPTH:
            self.found.warn(f"Include {pattern} is nested too deep; left out", line)
            return
        for name, text in self._include(pattern):
            if self._files >= MAX_FILES:
                self.found.warn(
                    f"more than {MAX_FILES} files are included; the rest is left out", line
                )
                return
            self.read(text, name, depth)

    def _words(self, line: str, number: int) -> list[str]:
        content = line.strip()
        if not content or content.startswith("#"):
            return []
        keyword, equals, rest = content.partition("=")
        if equals and keyword.strip().isalpha():
            content = f"{keyword} {rest}"
        try:
            return shlex.split(content)
        except ValueError:
            self.found.warn("unbalanced quotes; line left out", number)
            return []
