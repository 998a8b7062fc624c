"""The nearest valid name, for errors about unknown ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest_name(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like ``name``, or None when nothing is alike."""
    by_folded = {candidate.casefold(): candidate for candidate in valid}
    matches = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.5)
    return by_folded[matches[0]] if matches else None


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A remedy sentence: the nearest valid name, else all of them (at most 12)."""
    names = sorted(valid)
    if not names:
        return "none exist"
    match = nearest_name(name, names)
    if match is not None:
        return f"did you mean {match!r}?"
    listed = ", ".join(names[:12])
    return f"valid names: {listed}" + (", ..." if len(names) > 12 else "")
