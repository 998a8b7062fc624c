"""A bug as data: which text of which file becomes which, and the tests that must notice."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path


class StaleMutant(Exception):
    """The file does not hold the old text exactly once any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """``old`` occurs exactly once in ``file``, a path below the checkout's root. ``tests`` are
    pytest selections, the likeliest first; ``promise`` is what the bug breaks.
    """

    name: str
    promise: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, text: str) -> str:
        """``text`` of the file with the bug in it. Raises :class:`StaleMutant`."""
        if (count := text.count(self.old)) != 1:
            raise StaleMutant(f"{self.name}: its old text is {count} times in {self.file}")
        return text.replace(self.old, self.new)

    def apply(self, tree: Path) -> None:
        """Put the bug into a copy of the checkout. Raises :class:`StaleMutant`, ``SyntaxError``."""
        path = tree / self.file
        text = self.applied(path.read_text("utf-8"))
        compile(text, self.file, "exec")
        path.write_text(text, "utf-8")
        # The copied byte code is of the text before; both may have the same size and second.
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
