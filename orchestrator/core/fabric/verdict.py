"""What a probe found to be at fault, and how people are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# (from, to): two nodes, and the direction in which the first packet goes.
Link = tuple[str, str]

MAX_NAMED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A sentence, and the nodes and links that it blames. Neither: something common to all."""

    sentence: str
    culprits: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()


def listing(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``, ``a, b, ... and 3 more``."""
    if len(names) > MAX_NAMED:
        return f"{', '.join(names[:MAX_NAMED])} and {len(names) - MAX_NAMED} more"
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def because(error: str) -> str:
    """What follows a sentence whose reason is known."""
    return f" ({error[:200]})" if error else ""
