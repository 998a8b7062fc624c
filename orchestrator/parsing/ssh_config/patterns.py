"""Patterns of ssh_config and known_hosts: ``*``, ``?``, lists, and ``!`` that overrules."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches_pattern(text: str, pattern: str) -> bool:
    """Whether one pattern fits the whole text. Case counts; ``[`` is an ordinary character."""
    if "*" not in pattern and "?" not in pattern:
        return text == pattern
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def matches_any(text: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern fits and none that ``!`` negates does."""
    found = False
    for pattern in patterns:
        if matches_pattern(text, pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def matches_list(text: str, patterns: str) -> bool:
    """:func:`matches_any` for a list by commas, such as ``gpu-*,!gpu-2``."""
    return matches_any(text, patterns.split(","))


def matches_host(name: str, patterns: str) -> bool:
    """:func:`matches_list` without regard to case, as ``Match host`` and known_hosts have it."""
    return matches_list(name.lower(), patterns.lower())
