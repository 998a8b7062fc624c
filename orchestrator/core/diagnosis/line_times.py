"""When a log line was written, by its own words."""

from __future__ import annotations

import re
from itertools import accumulate

HEAD = 200  # characters in which a line's time and prefixes stand
_MONTHS = {
    name: n for n, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split())
}
_DAYS_BEFORE = (0, *accumulate((31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)))
YEAR_S = 366 * 86_400.0

_CLOCK = r"(?P<h>[0-2]\d):(?P<m>[0-5]\d):(?P<s>[0-6]\d)(?:[.,](?P<f>\d{1,9}))?"
_TIMES = (
    re.compile(r"(?<!\d)\d{4}[-/](?P<month>[01]\d)[-/](?P<day>[0-3]\d)[T _]" + _CLOCK),
    re.compile(r"(?<![A-Za-z])[IWEF](?P<month>1[0-2]|0?[1-9])(?P<day>[0-3]\d) " + _CLOCK),
    re.compile(
        r"(?P<month>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) {1,2}(?P<day>[ 0-3]?\d) "
        + _CLOCK
    ),
)


def read_time(line: str) -> float | None:
    """Seconds since the first of January, by the clock of whoever wrote the line; None without.
    Of several the outermost counts: a collector stamps all its lines by one clock.

    Many formats leave the year out, so it is left out of all; zones are taken as they stand.
    """
    head = line[:HEAD]
    found = [match for pattern in _TIMES if (match := pattern.search(head)) is not None]
    return _seconds(min(found, key=lambda match: match.start())) if found else None


def last_time(lines: str) -> float | None:
    """The time of the last line that has one."""
    for line in reversed(lines.split("\n")):
        if (at := read_time(line)) is not None:
            return at
    return None


def over_new_year(times: list[float]) -> list[float]:
    """Times that are half a year apart are taken to have New Year between them."""
    if not times or max(times) - min(times) < YEAR_S / 2:
        return times
    return [at + YEAR_S if at < YEAR_S / 2 else at for at in times]


def _seconds(match: re.Match[str]) -> float:
    month = match["month"].lower()
    number = _MONTHS[month] if month in _MONTHS else int(month) - 1
    days = _DAYS_BEFORE[min(max(number, 0), 11)] + int(match["day"]) - 1
    clock = int(match["h"]) * 3600 + int(match["m"]) * 60 + int(match["s"])
    return days * 86_400.0 + clock + (float(f"0.{match['f']}") if match["f"] else 0.0)
