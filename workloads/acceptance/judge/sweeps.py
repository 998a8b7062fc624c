"""From what each rank measured to one line for each size of each collective. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..base.bandwidth import bus_bandwidth
from ..base.robust_stats import Spread, median, spread

Key = tuple[str, str, str, tuple[int, ...], int]


def merged_sweeps(parts: Iterable[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Ranks of one group at one size become one record.

    The time is the mean over ranks, as nccl-tests has it; the slowest and the fastest rank stand
    beside it. Wrong elements add up.
    """
    groups: dict[Key, list[Mapping[str, Any]]] = {}
    for records in parts:
        for record in records:
            members = tuple(record["members"])
            where = (record["scope"], record["collective"], record["placement"])
            groups.setdefault((*where, members, record["size"]), []).append(record)
    return [_merged(records) for records in groups.values()]


def _merged(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = records[0]
    seconds: Spread = spread([record["seconds"] for record in records])
    mean = sum(record["seconds"] for record in records) / len(records)
    ranks = len(first["members"])

    def rate(time: float) -> float:
        return bus_bandwidth(first["collective"], ranks, first["size"], time)

    shared = "collective placement scope members nodes size warmup iterations".split()
    return {
        **{name: first[name] for name in shared},
        "ranks": ranks,
        "microseconds": mean * 1e6,
        "p50_microseconds": median([record["p50"] for record in records]) * 1e6,
        "p99_microseconds": max(record["p99"] for record in records) * 1e6,
        "algbw": first["size"] / mean / 1e9,
        "busbw": rate(mean),
        "busbw_slowest_rank": rate(seconds.high),
        "busbw_fastest_rank": rate(seconds.low),
        "wrong": sum(record["wrong"] for record in records),
        "checked": sum(record["checked"] for record in records),
    }
