"""Options of the command line that are for one launcher alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# The values that were given, and the environment of the command, as words for the launcher.
PassOn = Callable[[Sequence[str], Mapping[str, str]], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Misuse:
    """Why a value cannot be given: ``what`` is wrong with it, and what helps."""

    what: str
    why: str = ""
    remedy: str = ""


def _as_given(values: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    del environment
    return tuple(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherOption:
    """``name``: the key that its values are remembered under. ``implies``: giving it chooses the
    launcher. ``find_misuse``: what is wrong with one value, if anything is. ``pass_on``: called
    also when no value was given; the words are among the ``options`` of a :class:`LaunchSpec`.
    """

    flag: str
    name: str
    metavar: str
    help: str
    find_misuse: Callable[[str], Misuse | None] = lambda _: None
    pass_on: PassOn = _as_given
    repeatable: bool = False
    implies: bool = False

    @property
    def id(self) -> str:
        """Of errors about it."""
        return f"run.{self.flag.removeprefix('--')}"
