"""Errors of GPUs and NVSwitches in the kernel's log: which kinds, how often, when last."""

from __future__ import annotations

import re
import time

from orchestrator.node_agent.facts.kernel import matching_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SINCE_S = 30 * 86400.0
MAX_KINDS = 64
DAY_S = 86400.0
# As in `NVRM: Xid (PCI:0000:3b:00): 79, pid=`; of switches `SXid (PCI:0000:c1:00.0): 12028,`
LINE = re.compile(rb"(S?)Xid \(PCI:([0-9A-Fa-f:.]{7,16})\): (\d{1,6})")


def find_xids(notes: list[str]) -> list[dict[str, Any]] | None:
    """None with a note where the log may not be read."""
    lines, denied = matching_lines(b"Xid (PCI:", SINCE_S)
    if denied:
        notes.append(f"the kernel's log cannot be read, so Xids are unknown: {denied}")
        return None
    return summarize_xids(lines)


def summarize_xids(lines: list[bytes]) -> list[dict[str, Any]]:
    """One entry for each code of each device; lines begin with their time."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    times: dict[tuple[str, int], list[float]] = {}
    for line in lines:
        match = LINE.search(line)
        if match is None:
            continue
        pci, code = match[2].decode().lower(), int(match[3])
        kind = {"code": code, "pci": pci, "count": 0, "switch": bool(match[1])}
        entry = found.setdefault((pci, code), kind)
        entry["count"] += 1
        entry["last"] = line.split(b" ", 1)[0].decode(errors="replace")[:64]
        times.setdefault((pci, code), []).append(_seconds(entry["last"]))
    for key, entry in found.items():
        entry["in_a_day"] = _most_within(times[key], DAY_S)
    return list(found.values())[-MAX_KINDS:]


def _seconds(stamp: str) -> float:
    """Since 1970, by this node's clock; 0 for what is no time, as of lines without any."""
    try:
        return time.mktime(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return 0.0


def _most_within(times: list[float], span_s: float) -> int:
    """The most of ``times`` in any window that long."""
    times = sorted(times)
    first, most = 0, 0
    for last, at in enumerate(times):
        while at - times[first] > span_s:
            first += 1
        most = max(most, last - first + 1)
    return most
