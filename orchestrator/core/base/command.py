"""Commands are argument vectors until the last inch, and secrets are a type, not a discipline.

Two functions turn a :class:`Command` into text: :func:`render_shell` for a POSIX login shell,
with every byte quoted, and :func:`render_human` for people, with secrets masked.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MASK = "***"


class Secret:
    """A value that every ordinary way of printing masks; only ``reveal_secret`` opens it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself. Call this only where bytes leave for a process, never to print."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))


Text = str | Secret


def reveal_secret(text: Text) -> str:
    """The plain value of a possibly secret text."""
    return text.reveal() if isinstance(text, Secret) else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to execute. ``argv[0]`` is looked up on the node's PATH; ``env`` is added to the
    node's own.

    Raises ``ValueError`` for what no process can be given: an empty ``argv``, a NUL byte, or an
    environment name that is empty or holds ``=``.
    """

    argv: tuple[str, ...]
    env: Mapping[str, Text] = field(default_factory=dict)
    cwd: str | None = None

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise ValueError("a command needs at least a program name")
        texts = [
            *self.argv,
            *self.env,
            *(reveal_secret(v) for v in self.env.values()),
            self.cwd or "",
        ]
        if any("\0" in text for text in texts):
            raise ValueError("a command cannot carry NUL bytes")
        for name in self.env:
            if not name or "=" in name:
                raise ValueError(f"not an environment variable name: {name!r}")


def render_shell(argv: Sequence[str]) -> str:
    """One line for a POSIX ``sh``, every byte quoted (SSH hands one string to the login shell).

    ``argv[0]`` must not begin with ``-`` or hold ``=``: shells read those their own way.
    """
    return "exec " + shlex.join(argv)


def render_human(command: Command) -> str:
    """One line for plans and logs; secrets show as ``***``."""
    pairs = [f"{name}={shlex.quote(str(value))}" for name, value in command.env.items()]
    return " ".join([*pairs, *(shlex.quote(word) for word in command.argv)])
