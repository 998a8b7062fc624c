"""What a probe found to be at fault, and how people are told."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

# (from, to): two nodes, and the direction in which the first packet goes.
Link = tuple[str, str]

MAX_NAMED = 6
TWO_ENDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricVerdict:
    """A sentence, and the nodes and links that it blames. Neither: something common to all."""

    sentence: str
    culprits: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()


def list_names(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``, ``a, b, ... and 3 more``."""
    if len(names) > MAX_NAMED:
        return f"{', '.join(names[:MAX_NAMED])} and {len(names) - MAX_NAMED} more"
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def remedy_for(culprits: Sequence[str], links: Sequence[Link], cluster: str = "") -> str:
    """What to look at, how to look again at ``cluster`` (as on the command line), and how to go on
    without.
    """
    ends = list(dict.fromkeys(name for link in links for name in link))
    if culprits and not links:
        where, leave, without = f"at {list_names(culprits)}", "leave out", culprits
    elif len(ends) == TWO_ENDS and not culprits:
        where, leave, without = f"between {list_names(ends)}", "leave one of them out", ends[1:]
    else:
        where, leave, without = "between the nodes", "leave nodes out", culprits
    expression = ",".join(f"!{name}" for name in without[:MAX_NAMED]) or "!NAME"
    again = f"to look again: orchestrate doctor --cluster {shlex.quote(cluster)}; "
    return (
        f"repair the network or the firewall {where}; {again if cluster else ''}"
        f"or {leave}: --nodes {shlex.quote(expression)}"
    )


def reason_clause(error: str) -> str:
    """What follows a sentence whose reason is known."""
    return f" ({error[:200]})" if error else ""
