"""The conditions of a ``Match`` line."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.parsing.ssh_config.words import first_word

# OpenSSH 9.2 knows these; 9.4 adds tagged and localnetwork, 10.0 version, sessiontype and command.
BARE = frozenset({"all", "canonical", "final"})
WITH_ARGUMENT = frozenset({"exec", "host", "localuser", "originalhost", "user"})
NEWER = frozenset({"command", "localnetwork", "sessiontype", "tagged", "version"})
MAY_BE_EMPTY = frozenset({"command", "tagged"})


@dataclass(frozen=True, slots=True)
class Criterion:
    """One condition; ``name`` in lower case. One that no version knows has no argument: where it
    ends is unknown, so what follows it on the line is not read.
    """

    name: str
    argument: str = ""
    negated: bool = False

    @property
    def known(self) -> bool:
        return self.name in BARE | WITH_ARGUMENT | NEWER


def parse_match(text: str) -> tuple[Criterion, ...]:
    """The conditions of a line; all must hold. Raises ``ValueError``."""
    criteria: list[Criterion] = []
    rest: str | None = text
    while rest:
        word, rest = first_word(rest)
        if not word or word.startswith("#"):
            break
        criterion, rest = _parse_criterion(word, rest)
        criteria.append(criterion)
        if not criterion.known:
            break
        if criterion.name == "all" and len(criteria) > 2:
            raise ValueError("'all' stands alone, or behind 'canonical' or 'final'")
    if not criteria:
        raise ValueError("a condition is missing")
    return tuple(criteria)


def _parse_criterion(word: str, rest: str | None) -> tuple[Criterion, str | None]:
    negated, name = word.startswith("!"), word.removeprefix("!").lower()
    criterion = Criterion(name, negated=negated)
    if not criterion.known:
        return criterion, None
    if name == "all" and rest and not rest.startswith("#"):
        raise ValueError("'all' stands alone, or behind 'canonical' or 'final'")
    if name in BARE:
        return criterion, rest
    argument, after = first_word(rest) if rest else ("", None)
    quoted_nothing = rest is not None and rest.startswith('""')
    if not argument and not (name in MAY_BE_EMPTY and quoted_nothing):
        raise ValueError(f"'{name}' needs a value")
    if argument.startswith("#"):
        raise ValueError(f"'{name}' needs a value")
    return Criterion(name, argument, negated), after
