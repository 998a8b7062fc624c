"""Nights as people read them: rows of a table, and when the next one is due."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from orchestrator.adapters.nightly.due_times import next_nights
from orchestrator.core.nightly.nights import Night
from orchestrator.core.nightly.schedule import DueNight, Schedule
from orchestrator.view.terminal.text import brief_text, format_seconds

NIGHT_HEADINGS = ("night", "state", "due", "began", "took", "runs", "reason")


def next_line(schedule: Schedule) -> str:
    """When the next night is due, in the schedule's zone and here."""
    (night,) = next_nights(schedule, time.time(), 1)
    due, here = _clock(night.due, schedule.zone), _clock(night.due, "")
    return f"next {due} ({schedule.zone}), {here} here"


def since_cell(schedule: Schedule) -> str:
    """Since when the schedule is there, in its zone."""
    return f"{_clock(schedule.since, schedule.zone)} ({schedule.zone})"


def due_cells(due: DueNight, zone: str) -> tuple[str, str, str]:
    """A night that is to come, and when it is due in ``zone`` and here."""
    return due.night, _clock(due.due, zone), _clock(due.due, "")


def night_cells(night: Night, zone: str) -> list[str]:
    """One row for ``NIGHT_HEADINGS``, with times of ``zone``."""
    state = f"{night.state.value}, late" if night.is_late else night.state.value
    took = ""
    if night.started is not None and night.finished is not None:
        took = format_seconds(night.finished - night.started)
    return [
        night.night,
        state,
        _clock(night.due, zone),
        _clock(night.started, zone),
        took,
        " ".join(night.run_ids),
        brief_text(night.reason, 80),
    ]


def _clock(moment: float | None, zone: str) -> str:
    """On the wall of ``zone``, or of this machine; empty for no moment."""
    if moment is None:
        return ""
    local = datetime.fromtimestamp(moment, UTC).astimezone(ZoneInfo(zone) if zone else None)
    return f"{local:%a %Y-%m-%d %H:%M}"
