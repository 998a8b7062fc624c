"""What a session begins with: ``SendEnv`` and ``SetEnv``. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.parsing.ssh_config.patterns import matches_pattern


def assigned_variables(words: Iterable[str]) -> dict[str, str]:
    """Of ``NAME=value`` words; of two for one name, the first."""
    found: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        found.setdefault(name, value)
    return found


def session_variables(
    environ: Mapping[str, str], sent: Sequence[str], assigned: Iterable[str]
) -> dict[str, str]:
    """The variables of ``environ`` that a pattern of ``sent`` fits, and ``assigned`` over them."""
    names: Iterable[str] = environ if sent else ()  # an environment is long
    named = {
        name: environ[name]
        for name in names
        if any(matches_pattern(name, pattern) for pattern in sent)
    }
    return named | assigned_variables(assigned)
