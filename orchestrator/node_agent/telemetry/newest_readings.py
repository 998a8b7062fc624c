"""The newest readings of a node's GPUs as one line, for whoever watches the run while it lasts."""

from __future__ import annotations

import json
import os

from orchestrator.node_agent.facts.nvml import throttle_names
from orchestrator.node_agent.telemetry.readings import WHOLE_GPU

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Number = int | float
    Row = Sequence[Number | None]
    Latest = Mapping[str, Mapping[int, Row]]  # capture -> GPU -> its newest row

EVERY_S = 15.0
# A power cap that software set is ordinary work.
HELD_DOWN = {
    "thermal": frozenset({"hw_thermal", "sw_thermal"}),
    "power": frozenset({"hw_slowdown", "hw_power_brake"}),
}


def summarise(latest: Latest) -> dict[str, object]:
    """Sums over GPUs, of the temperature the highest; what is not known of each GPU is left out."""
    power, clocks = latest.get("power", {}), latest.get("clocks", {})
    memory, nvlink = latest.get("memory", {}), latest.get("nvlink", {})
    found: dict[str, object] = {
        "watts": _over(power, sum, lambda row: _scaled(_first(row[0], row[1]), 1e-3)),
        "temperature_c": _over(clocks, max, lambda row: row[3]),
        "memory_used_bytes": _over(memory, sum, lambda row: row[0]),
        "nvlink_sent_bytes": _over(nvlink, sum, lambda row: _scaled(row[1], 1024)),
        "nvlink_received_bytes": _over(nvlink, sum, lambda row: _scaled(row[2], 1024)),
        "throttled": _throttled([row[2] for row in clocks.values()]),
    }
    return {name: value for name, value in found.items() if value is not None}


def is_whole(kind: str, row: Row) -> bool:
    """Whether the row is of a GPU, and not of one of its links."""
    return kind != "nvlink" or row[0] == WHOLE_GPU


def report(path: str, latest: Latest) -> None:
    """Append one line by one write, as ranks do. A disk that fails costs the line."""
    line = json.dumps({"type": "telemetry", **summarise(latest)}).encode() + b"\n"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)
    except OSError:
        return


def _over(
    rows: Mapping[int, Row],
    join: Callable[[Iterable[Number]], Number],
    value: Callable[[Row], Number | None],
) -> Number | None:
    values = [value(row) for row in rows.values()]
    known = [one for one in values if one is not None]
    return join(known) if known and len(known) == len(values) else None


def _throttled(masks: Sequence[Number | None]) -> dict[str, int] | None:
    known = [throttle_names(int(mask)) for mask in masks if mask is not None]
    if not known:
        return None
    return {
        name: sum(not kinds.isdisjoint(reasons) for reasons in known)
        for name, kinds in HELD_DOWN.items()
    }


def _first(*values: Number | None) -> Number | None:
    return next((value for value in values if value is not None), None)


def _scaled(value: Number | None, by: float) -> float | None:
    return None if value is None else value * by
