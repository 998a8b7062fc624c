"""What ``status`` shows, from the disk alone: it is true also when nothing ran at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.nightly.due_times import next_nights
from orchestrator.adapters.nightly.night_figures import night_series
from orchestrator.adapters.nightly.schedule_store import (
    NightlyFolder,
    find_schedule,
    read_nights,
    read_records,
    schedule_names,
)
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.store.run_list import RunSummary, list_runs
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.detection.night_series import FigureState, NightSeries
from orchestrator.core.history.run_record import RunQuery, RunRecord
from orchestrator.core.nightly.nights import Night, NightState, alarm_text, first_to_come

SHOWN_RUNS, SHOWN_REPORTS, SHOWN_NIGHTS = 10, 5, 7
TREND_NIGHTS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureTrend:
    """A figure of the latest night beside the last good night before it, and its nights.

    The last good night is the latest before tonight that counts and is of no regression that still
    lasts. ``first_bad``: since when one lasts, else empty. ``nights``: the dates of ``trend``.
    """

    schedule: str
    figure: str
    unit: str
    night: str
    value: float | None
    last_good: str
    before: float | None
    state: str
    first_bad: str
    nights: tuple[str, ...]
    trend: tuple[float, ...]

    @property
    def change(self) -> float | None:
        """Relative to the last good night."""
        if self.value is None or not self.before:
            return None
        return (self.value - self.before) / abs(self.before)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleStatus:
    """A schedule: its latest nights, and when the next one is due (seconds since the epoch)."""

    name: str
    what: str
    zone: str
    nights: tuple[Night, ...]
    next_due: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulesStatus:
    """All schedules. ``alarms``: one line each. ``troubles``: what could not be read."""

    alarms: tuple[str, ...]
    schedules: tuple[ScheduleStatus, ...]
    trends: tuple[FigureTrend, ...]
    troubles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusPage:
    """Everything at ``now``. ``alarms``: one line each. ``troubles``: what could not be read."""

    now: float
    alarms: tuple[str, ...]
    schedules: tuple[ScheduleStatus, ...]
    trends: tuple[FigureTrend, ...]
    runs: tuple[RunSummary, ...]
    reports: tuple[RunRecord, ...]
    troubles: tuple[str, ...] = ()

    @property
    def is_busy(self) -> bool:
        """Whether a run is under way."""
        return any(run.state == "running" for run in self.runs)


def gather_status(layout: Layout, *, now: float) -> StatusPage:
    """Read everything. What cannot be read becomes a trouble of the page, and never an exception
    of a schedule beside it.
    """
    nights = read_schedules(layout, now=now)
    troubles = list(nights.troubles)
    reports: tuple[RunRecord, ...] = ()
    try:
        reports = open_history(layout).read_runs(RunQuery(limit=SHOWN_REPORTS))
    except (OSError, OrchestrateError) as error:
        troubles.append(f"history: {error}")
    return StatusPage(
        now=now,
        alarms=nights.alarms,
        schedules=nights.schedules,
        trends=nights.trends,
        runs=tuple(list_runs(layout, limit=SHOWN_RUNS)),
        reports=reports,
        troubles=tuple(troubles),
    )


def read_schedules(layout: Layout, *, now: float, nights: int = SHOWN_NIGHTS) -> SchedulesStatus:
    """All schedules with their latest ``nights``. What cannot be read becomes a trouble."""
    schedules: list[ScheduleStatus] = []
    trends: list[FigureTrend] = []
    troubles: list[str] = []
    for name in schedule_names(layout):
        try:
            folder, status = _schedule_status(layout, name, now, nights)
            schedules.append(status)
            trends += _trends(layout, folder)
        except (OSError, OrchestrateError) as error:
            troubles.append(f"schedule {name}: {error}")
    return SchedulesStatus(
        alarms=tuple(_alarms(schedules, trends)),
        schedules=tuple(schedules),
        trends=tuple(trends),
        troubles=tuple(troubles),
    )


def _schedule_status(
    layout: Layout, name: str, now: float, shown: int
) -> tuple[NightlyFolder, ScheduleStatus]:
    folder, schedule = find_schedule(layout, name)
    nights = read_nights(folder, schedule, now=now)
    following = first_to_come(next_nights(schedule, now, 2), nights)
    return folder, ScheduleStatus(
        name=name,
        what=schedule.what,
        zone=schedule.zone,
        nights=nights[-shown:],
        next_due=following.due,
    )


def _trends(layout: Layout, folder: NightlyFolder) -> Iterator[FigureTrend]:
    said = _findings(folder)
    for series in night_series(layout, read_records(folder)):
        yield _trend(folder.name, series, *said.get(series.name, ("", "")))


def _trend(schedule: str, series: NightSeries, state: str, first_bad: str) -> FigureTrend:
    latest = series.nights[-1]
    good = [
        night
        for night in series.nights[:-1]
        if night.counts and (not first_bad or night.night < first_bad)
    ]
    shown = [
        (night.night, night.value)
        for night in series.nights[-TREND_NIGHTS:]
        if night.counts and night.value is not None
    ]
    return FigureTrend(
        schedule=schedule,
        figure=series.name,
        unit=series.unit,
        night=latest.night,
        value=latest.value if latest.counts else None,
        last_good=good[-1].night if good else "",
        before=good[-1].value if good else None,
        state=state,
        first_bad=first_bad,
        nights=tuple(night for night, _ in shown),
        trend=tuple(value for _, value in shown),
    )


def _findings(folder: NightlyFolder) -> dict[str, tuple[str, str]]:
    """What the latest night that was judged said of each figure: its state, and the first night of
    a regression.
    """
    try:
        findings = json.loads(folder.findings.read_bytes())["findings"]
        return {str(each["series"]): (_state(each), _first_bad(each)) for each in findings}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _state(finding: Mapping[str, Any]) -> str:
    return str(finding["state"]) + (", acknowledged" if finding["acknowledged"] else "")


def _first_bad(finding: Mapping[str, Any]) -> str:
    return str(finding["first_bad"]) if finding["state"] == FigureState.REGRESSION else ""


def _alarms(schedules: Iterable[ScheduleStatus], trends: Sequence[FigureTrend]) -> Iterator[str]:
    for schedule in schedules:
        for night in schedule.nights[-2:]:
            if night.alarms and night.state is not NightState.RUNNING:
                yield f"{schedule.name}: night {night.night} is {alarm_text(night)}"
    for trend in trends:
        if trend.state in {"regression", "missing", "invalid"}:
            yield f"{trend.schedule}: {trend.figure} is {trend.state} on {trend.night}"
