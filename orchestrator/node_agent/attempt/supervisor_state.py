"""What is known of an attempt's supervisor from what it left on disk and from /proc."""

from __future__ import annotations

import json
import os

from orchestrator.node_agent.base.node_layout import AttemptLayout
from orchestrator.node_agent.base.sysfs import boot_id
from orchestrator.node_agent.process.processes import is_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

TAIL_BYTES = 256 * 1024
MAX_EVENTS_BYTES = 16 * 1024 * 1024


class SupervisorState:
    """Who supervises an attempt, and whether it still does."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.record = record
        self.pid = int(record["pid"])
        self.start_time = int(record["start_time"])

    @property
    def identity(self) -> dict[str, int]:
        return {"pid": self.pid, "start_time": self.start_time}

    @property
    def alive(self) -> bool:
        return self.record.get("boot_id") == boot_id() and is_alive(self.pid, self.start_time)


def supervisor_state(attempt: AttemptLayout) -> SupervisorState | None:
    """None if the attempt never had a supervisor."""
    try:
        with open(attempt.supervisor) as file:
            return SupervisorState(json.loads(file.read(65536)))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def supervisor_records(attempt: AttemptLayout) -> Iterator[dict[str, Any]]:
    """What the supervisor has recorded so far; nothing if it never began."""
    try:
        with open(attempt.events, "rb") as file:
            lines = file.read(MAX_EVENTS_BYTES).splitlines()
    except OSError:
        return
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # the last line may be under way
            continue
        if isinstance(record, dict):
            yield record


def concluded_record(attempt: AttemptLayout) -> dict[str, Any] | None:
    """The ``concluded`` record, if the supervisor came to it."""
    try:
        with open(attempt.events, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
        record = json.loads(lines[-1]) if lines and lines[-1].endswith(b"\n") else {}
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("event") == "concluded" else None
