"""When the nights of a schedule are due: cron arithmetic in the schedule's own time zone.

A night's key is its local date, so that an hour that the clock repeats cannot run a night twice; a
time that the clock leaves out is due at the first instant after the gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim

from orchestrator.core.nightly.schedule import DueNight, Schedule

SHOWN_DAYS = 14  # how far back nights are looked for that have no record


def next_nights(schedule: Schedule, after: float, count: int) -> list[DueNight]:
    """The next ``count`` nights after ``after`` (seconds since the epoch)."""
    return list(islice(_nights(schedule, after), count))


def past_nights(schedule: Schedule, now: float, days: int = SHOWN_DAYS) -> list[DueNight]:
    """The nights of the last ``days`` that are due by ``now``, oldest first; none from before the
    schedule was made.
    """
    found = []
    for night in _nights(schedule, max(schedule.since, now - days * 86400)):
        if night.due > now:
            break
        found.append(night)
    return found


def _nights(schedule: Schedule, after: float) -> Iterator[DueNight]:
    zone = ZoneInfo(schedule.zone)
    # One day earlier, for jitter moves a night behind its time; a date that was seen is left out.
    start = datetime.fromtimestamp(after, UTC).astimezone(zone) - timedelta(days=1)
    seen = ""
    for moment in CronSim(schedule.at, start):
        night = moment.date().isoformat()
        due = moment.timestamp() + schedule.jitter_of(night)
        if night != seen and due > after:
            yield DueNight(night, due)
        seen = night
