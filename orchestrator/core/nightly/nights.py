"""What became of each night, from its records, and what a wake-up has to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.nightly.schedule import WATCH_AFTER_S, DueNight, Overlap, Schedule

LATE_AFTER_S = 900.0


class RecordKind(StrEnum):
    """What one line of a schedule's log says."""

    STARTED = "started"
    FINISHED = "finished"
    SKIPPED = "skipped"
    QUEUED = "queued"
    ALARMED = "alarmed"  # people were notified of the night's state


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRecord:
    """One line of the log; ``at`` in seconds since the epoch. ``status`` and ``exit_code`` are
    those of a finished run.
    """

    kind: RecordKind
    night: str
    at: float
    run_id: str = ""
    status: str = ""
    exit_code: int | None = None
    reason: str = ""


class NightState(StrEnum):
    """How a night stands."""

    DONE = "done"
    DEGRADED = "degraded"
    FAILED = "failed"
    RUNNING = "running"
    DUE = "due"
    QUEUED = "queued"
    SKIPPED = "skipped"
    MISSING = "missing"  # an hour after its time nothing had begun
    HALF_DONE = "half-done"  # begun, not finished, and nothing of it runs


_TO_BEGIN = frozenset({NightState.DUE, NightState.QUEUED, NightState.MISSING})
ALARMING = frozenset(
    {NightState.FAILED, NightState.MISSING, NightState.HALF_DONE, NightState.SKIPPED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """One night of a schedule. ``late_s``: how long after its time it began."""

    night: str
    due: float | None
    state: NightState
    run_ids: tuple[str, ...] = ()
    started: float | None = None
    finished: float | None = None
    late_s: float = 0.0
    reason: str = ""
    alarmed: tuple[str, ...] = ()

    @property
    def is_late(self) -> bool:
        return self.late_s > LATE_AFTER_S

    @property
    def alarms(self) -> bool:
        return self.state in ALARMING or self.is_late


def fold_nights(
    due: Iterable[DueNight], records: Iterable[NightRecord], *, now: float, busy: bool
) -> tuple[Night, ...]:
    """Every night that was due or has records, oldest first.

    ``busy``: whether a process works on the schedule at this moment.
    """
    times = {each.night: each.due for each in due}
    of: dict[str, list[NightRecord]] = {night: [] for night in times}
    for record in records:
        of.setdefault(record.night, []).append(record)
    return tuple(
        _fold_night(night, times.get(night), of[night], now=now, busy=busy) for night in sorted(of)
    )


def _fold_night(
    night: str, due: float | None, records: Sequence[NightRecord], *, now: float, busy: bool
) -> Night:
    started = [each for each in records if each.kind is RecordKind.STARTED]
    finished = [each for each in records if each.kind is RecordKind.FINISHED]
    began = started[0].at if started else None
    state, reason = _state(records, due, now=now, busy=busy)
    return Night(
        night=night,
        due=due,
        state=state,
        run_ids=tuple(each.run_id for each in started),
        started=began,
        finished=finished[-1].at if finished else None,
        late_s=max(0.0, began - due) if began is not None and due is not None else 0.0,
        reason=reason,
        alarmed=tuple(each.reason for each in records if each.kind is RecordKind.ALARMED),
    )


def _state(
    records: Sequence[NightRecord], due: float | None, *, now: float, busy: bool
) -> tuple[NightState, str]:
    acts = [each for each in records if each.kind is not RecordKind.ALARMED]
    last = acts[-1] if acts else None
    if last is not None and last.kind is RecordKind.FINISHED:
        return _finished_state(last)
    if last is not None and last.kind is RecordKind.STARTED:
        if busy:
            return NightState.RUNNING, ""
        return NightState.HALF_DONE, f"run {last.run_id} began and did not finish"
    if last is not None and last.kind is RecordKind.SKIPPED:
        return NightState.SKIPPED, last.reason
    if due is not None and now >= due + WATCH_AFTER_S and not (last is not None and busy):
        return NightState.MISSING, "nothing had begun an hour after its time"
    if last is not None:
        return NightState.QUEUED, last.reason
    return NightState.DUE, ""


def _finished_state(record: NightRecord) -> tuple[NightState, str]:
    states: Mapping[str, NightState] = {
        "succeeded": NightState.DONE,
        "degraded": NightState.DEGRADED,
    }
    state = states.get(record.status, NightState.FAILED)
    return state, record.reason


class WakeAction(StrEnum):
    """What a wake-up does with the night that is due."""

    NOTHING = "nothing"
    START = "start"
    SKIP = "skip"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True)
class WakeDecision:
    """``night`` is empty where there is nothing to do; ``reason`` is what the log keeps."""

    action: WakeAction
    night: str = ""
    reason: str = ""


def decide_wake(
    schedule: Schedule, due: Sequence[DueNight], nights: Sequence[Night], *, now: float, busy: bool
) -> WakeDecision:
    """What to do at ``now``. Only the latest night that is due is ever begun: of several missed
    nights at most one is caught up, and none after ``catch_up_s``.
    """
    nothing = WakeDecision(WakeAction.NOTHING)
    past = [each for each in due if each.due <= now]
    if not past:
        return nothing
    latest = past[-1]
    known = next((each for each in nights if each.night == latest.night), None)
    if (known is not None and known.state not in _TO_BEGIN) or _is_too_late(schedule, latest, now):
        return nothing
    if not busy:
        late = now - latest.due
        reason = f"{late / 60:.0f} min after its time" if late > LATE_AFTER_S else ""
        return WakeDecision(WakeAction.START, latest.night, reason)
    if schedule.overlap is Overlap.SKIP:
        return WakeDecision(WakeAction.SKIP, latest.night, "the night before was still running")
    if known is not None and known.state is NightState.QUEUED:
        return nothing
    return WakeDecision(WakeAction.QUEUE, latest.night, "the night before is still running")


def first_to_come(coming: Iterable[DueNight], nights: Iterable[Night]) -> DueNight:
    """The first night of ``coming`` that is still to begin: not one that was begun by hand."""
    begun = {each.night for each in nights if each.state not in _TO_BEGIN}
    return next(each for each in coming if each.night not in begun)


def _is_too_late(schedule: Schedule, latest: DueNight, now: float) -> bool:
    return latest.due < schedule.since or now - latest.due > schedule.catch_up_s


def nights_to_alarm(nights: Iterable[Night], since: float) -> tuple[Night, ...]:
    """Those whose state people have not been notified of; nights before ``since`` are nobody's."""
    return tuple(
        night
        for night in nights
        if night.alarms
        and alarm_name(night) not in night.alarmed
        and (night.due is None or night.due >= since)
    )


def alarm_name(night: Night) -> str:
    """What is wrong with the night, in one word."""
    return night.state.value if night.state in ALARMING else "late"


def alarm_text(night: Night) -> str:
    """The same with the reason, if there is one."""
    return f"{alarm_name(night)}: {night.reason}" if night.reason else alarm_name(night)
