"""Slurm's states of a node that keep it from running jobs, in long and short form."""

from __future__ import annotations

import re

_UNUSABLE = (
    "down",
    "drain",
    "drng",
    "fail",
    "futr",
    "future",
    "inval",
    "maint",
    "no_respond",
    "not_responding",
    "power",
    "reboot",
    "unk",
)
_ON_DEMAND = "cloud"
_MARKS = {"*": "not responding", "~": "powered off", "%": "powering down", "!": "powering down"}
_EMPTY = frozenset({"", "none", "(null)", "n/a"})


def state_trouble(state: str, reason: str = "") -> str:
    """What keeps a node from running jobs, with the reason that its owner gave; or ``""``."""
    bare = state.strip().lower()
    words = re.split(r"[+,]", bare.rstrip("*~#!%$@^-"))
    if _ON_DEMAND in words:
        return f"{bare} (made when a job asks for it, and gone when it idles)"
    marks = [text for mark, text in _MARKS.items() if bare.endswith(mark)]
    bad = any(word.startswith(_UNUSABLE) for word in words)
    if not bad and not marks:
        return ""
    notes = [
        *([] if bad else marks),
        *([] if is_no_reason(reason) else [reason.strip()]),
    ]
    return f"{bare} ({'; '.join(notes)})" if notes else bare


def is_no_reason(reason: str) -> bool:
    """Whether it is what Slurm prints where there is none."""
    return reason.strip().lower() in _EMPTY


def is_future(state: str) -> bool:
    """Whether the node does not exist yet."""
    return state.strip().lower() in ("future", "futr")
