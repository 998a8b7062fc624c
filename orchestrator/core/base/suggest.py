"""The nearest valid name, for errors about unknown ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SHOWN_NAMES = 60  # more than any file of settings has keys
SHOWN_RUNS = 4
MAX_CHARACTERS = 80  # of a name that is compared letter by letter
MIN_PART = 3  # characters of a part that makes names alike
CANDIDATES = 4

_PARTS = re.compile(r"[^a-z0-9]+")


def nearest_name(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that ``name`` most likely was meant to be: with a slip or two of typing,
    written with other separators, shortened, or with a word more. None when nothing is that near:
    a name that is only a little alike misleads.
    """
    import difflib  # only what is wrong needs it

    by_folded = {candidate.casefold(): candidate for candidate in valid}
    wanted = name.casefold()
    alike = difflib.get_close_matches(wanted, by_folded, n=CANDIDATES, cutoff=0.5)
    near = [each for each in alike if _is_near(wanted, each)]
    sharing = [each for each in by_folded if _shares_words(wanted, each)]
    last = _PARTS.split(wanted)[-1]
    near += sorted(sharing, key=lambda each: _PARTS.split(each)[-1] != last)
    return by_folded[near[0]] if near else None


def _is_near(wanted: str, valid: str) -> bool:
    """Whether a few slips lead from one to the other."""
    if sorted(_PARTS.sub("", wanted)) == sorted(_PARTS.sub("", valid)):
        return True
    longest = max(len(wanted), len(valid))
    if longest > MAX_CHARACTERS:
        return False
    return _count_slips(wanted, valid) <= max(1, (longest + 1) // 4)


def _shares_words(wanted: str, valid: str) -> bool:
    """``batch`` and ``batch_size``, ``ssh_key`` and ``key``, ``prec`` and ``precision``."""
    if len(wanted) >= MIN_PART and valid.startswith(wanted):
        return True
    both = [set(_PARTS.split(each)) - {""} for each in (wanted, valid)]
    few, many = sorted(both, key=len)
    return few < many and all(len(word) >= MIN_PART for word in few) and bool(few)


def _count_slips(one: str, other: str) -> int:
    """Letters that are wrong, missing, too many, or swapped with their neighbour (Damerau)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for n, letter in enumerate(one, 1):
        row = [n]
        for m, own in enumerate(other, 1):
            least = min(last[m] + 1, row[m - 1] + 1, last[m - 1] + (letter != own))
            if n > 1 and m > 1 and letter == other[m - 2] and one[n - 2] == own:
                least = min(least, before[m - 2] + 1)
            row.append(least)
        before, last = last, row
    return last[-1]


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


def describe_value(value: object) -> str:
    """A short name for a plain value, for error messages."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {value if len(value) <= 60 else value[:57] + '...'!r}"
        case list():
            return "a list"
        case _:
            return "a mapping"
