"""The nearest valid name, for errors about unknown ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SHOWN_NAMES = 12
SHOWN_RUNS = 4


def nearest_name(name: str, valid: Iterable[str]) -> str | None:
    """The valid name most like ``name``, or None when nothing is alike."""
    import difflib  # only what is wrong needs it

    by_folded = {candidate.casefold(): candidate for candidate in valid}
    matches = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.5)
    return by_folded[matches[0]] if matches else None


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """A remedy sentence: the nearest valid name, else the first of them and how many more."""
    names = sorted(valid)
    if not names:
        return "none exist"
    match = nearest_name(name, names)
    if match is not None:
        return f"did you mean {match!r}?"
    return f"valid names: {_first_names(names, SHOWN_NAMES)}"


def did_you_mean_run(name: str, newest_first: Sequence[str]) -> str:
    """A remedy sentence: the run id nearest to ``name``, else the newest and how many more."""
    match = nearest_name(name, newest_first)
    if match is not None:
        return f"did you mean {match!r}?"
    return f"the newest runs: {_first_names(newest_first, SHOWN_RUNS)}"


def _first_names(names: Sequence[str], shown: int) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f", and {more} more" if more > 0 else "")
