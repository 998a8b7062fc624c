"""How a log line tells who wrote it and when: prefixes of torch, torchrun, srun, NCCL, syslog..."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate

HEAD = 200  # characters in which a line's time and prefixes stand
_MAX_PREFIXES = 6
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

_NAME = r"[A-Za-z0-9][\w.-]{0,62}"
_PREFIXES = (
    re.compile(r"\[rank(?P<rank>\d{1,6})\]:? ?"),  # torch
    re.compile(r"\[(?:default|trainer|worker)(?P<local>\d{1,6})\]:? ?"),  # torchrun --tee
    re.compile(rf"\[(?P<node>{_NAME})[/:](?P<rank>\d{{1,6}})\]:? "),  # orchestrate and others
    re.compile(rf"\[(?P<node>{_NAME})/launcher\] "),
    re.compile(r"\[\d{1,6},(?P<rank>\d{1,6})\](?:<std(?:out|err|diag)>)?: ?"),  # mpirun
    re.compile(
        r"\(\w{1,60} (?:rank=(?P<rank>\d{1,6}) ?,? ?)?pid=\d{1,9}(?:, ip="
        r"(?P<node>[\w.:-]{1,60}))?\) "
    ),
    re.compile(r" {0,4}(?P<rank>\d{1,6}): "),  # srun --label
    # NCCL; its own words follow, which rules look for, so that only who is taken from it.
    re.compile(rf"(?=(?P<node>{_NAME}):\d{{1,9}}:\d{{1,9}} \[\d{{1,3}}\] )"),
    re.compile(r"(?P<node>(?!python|lib)[a-z][a-z-]{0,40}\d{1,6}): "),  # clush, pdsh, parallel-ssh
    # Times: syslog with a host's name, then any other.
    re.compile(
        r"[A-Z][a-z]{2} {1,2}\d{1,2} \d\d:\d\d:\d\d (?P<node>"
        + _NAME
        + r") (?=(?:kernel|systemd|nv-|nvidia)\b)"
    ),
    re.compile(
        r"\[?\d{4}[-/]\d\d[-/]\d\d[T _]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
        r"(?:Z|[+-]\d\d:?\d\d)?\]?[ :,-]{0,3}"
    ),
    re.compile(r"\[(?:[A-Z][a-z]{2} ){2} ?\d{1,2} \d\d:\d\d:\d\d \d{4}\] "),  # dmesg -T
    re.compile(r"(?:ERROR|CRITICAL|FATAL|stderr|E)[ :]{1,3}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the beginning of a line tells; ``text`` is the line without it."""

    text: str
    node: str = ""
    rank: int | None = None


def read_head(line: str) -> Head:
    """The prefixes of ``line``, at most a handful of them."""
    node, rank, local, text = "", None, None, line
    for _ in range(_MAX_PREFIXES):
        match = next((m for p in _PREFIXES if (m := p.match(text)) is not None), None)
        if match is None:
            break
        told = match.groupdict()
        node = node or told.get("node") or ""
        if rank is None and told.get("rank"):
            rank = int(told["rank"])
        if local is None and told.get("local"):
            local = int(told["local"])
        if match.end() == 0:
            break
        text = text[match.end() :]
    return Head(text=text.lstrip(), node=node, rank=local if rank is None else rank)


def read_time(line: str) -> float | None:
    """Seconds since the first of January, by the clock of whoever wrote the line; None without.

    Many formats leave the year out, so it is left out of all; zones are taken as they stand.
    """
    head = line[:HEAD]
    match = next((m for pattern in _TIMES if (m := pattern.search(head)) is not None), None)
    return None if match is None else _seconds(match)


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
