"""What becomes of a night: begun once, skipped or queued behind another, or missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.nightly.nights import (
    Night,
    NightRecord,
    NightState,
    RecordKind,
    WakeAction,
    WakeDecision,
    alarm_name,
    decide_wake,
    first_to_come,
    fold_nights,
    nights_to_alarm,
)
from orchestrator.core.nightly.schedule import DueNight, Overlap, Schedule, wake_minutes

HOUR, DAY = 3600.0, 86400.0
DUE = [DueNight("2026-11-28", 0.0), DueNight("2026-11-29", DAY), DueNight("2026-11-30", 2 * DAY)]
NOW = 2 * DAY + 60


def schedule(**given: object) -> Schedule:
    fields = {"name": "jw3", "cluster": "lab", "workload": "w", "at": "0 19 * * *"}
    return Schedule(**{**fields, "zone": "Asia/Seoul", "since": 0.0, **given})  # type: ignore[arg-type]


def record(kind: RecordKind, night: str, at: float = 0.0, **given: object) -> NightRecord:
    return NightRecord(kind=kind, night=night, at=at, **given)  # type: ignore[arg-type]


def nights_of(*records: NightRecord, now: float = NOW, busy: bool = False) -> tuple[Night, ...]:
    due = [each for each in DUE if each.due <= now]
    return fold_nights(due, records, now=now, busy=busy)


def decide(
    *records: NightRecord, now: float = NOW, busy: bool = False, **given: object
) -> WakeDecision:
    nights = nights_of(*records, now=now, busy=busy)
    return decide_wake(schedule(**given), DUE, nights, now=now, busy=busy)


def test_a_night_that_is_due_begins() -> None:
    assert decide() == WakeDecision(WakeAction.START, "2026-11-30", "")


@pytest.mark.parametrize("kind", [RecordKind.STARTED, RecordKind.FINISHED, RecordKind.SKIPPED])
def test_a_night_begins_once(kind: RecordKind) -> None:
    assert decide(record(kind, "2026-11-30")).action is WakeAction.NOTHING


def test_a_night_that_was_begun_by_hand_is_not_to_come() -> None:
    """Tonight's run was asked for at noon: the next is tomorrow's."""
    coming = [DueNight("2026-12-01", 3 * DAY), DueNight("2026-12-02", 4 * DAY)]
    assert first_to_come(coming, ()) == coming[0]
    by_hand = record(RecordKind.STARTED, "2026-12-01", NOW)
    assert first_to_come(coming, nights_of(by_hand, busy=True)) == coming[1]


def test_of_several_missed_nights_the_latest_is_caught_up() -> None:
    """Three were missed; a host that was off does not run three in a row."""
    decision = decide(now=2 * DAY + 5 * HOUR)

    assert decision == WakeDecision(WakeAction.START, "2026-11-30", "300 min after its time")


def test_a_night_is_not_caught_up_for_ever() -> None:
    assert decide(now=2 * DAY + 13 * HOUR).action is WakeAction.NOTHING
    assert decide(now=2 * DAY + 60, since=2 * DAY + 30).action is WakeAction.NOTHING


def test_an_overlapping_night_is_skipped_or_queued_once() -> None:
    running = record(RecordKind.STARTED, "2026-11-29", DAY)
    queued = record(RecordKind.QUEUED, "2026-11-30", NOW)

    assert decide(running, busy=True).action is WakeAction.SKIP
    assert decide(running, busy=True, overlap=Overlap.QUEUE).action is WakeAction.QUEUE
    again = decide(running, queued, busy=True, overlap=Overlap.QUEUE)
    assert again.action is WakeAction.NOTHING
    freed = decide(running, queued, overlap=Overlap.QUEUE)
    assert (freed.action, freed.night) == (WakeAction.START, "2026-11-30")


@pytest.mark.parametrize(
    "records, busy, now, state",
    [
        ([], False, NOW, NightState.DUE),
        ([], False, 2 * DAY + HOUR, NightState.MISSING),
        (["started"], True, NOW, NightState.RUNNING),
        (["started"], False, NOW, NightState.HALF_DONE),
        (["skipped"], False, NOW, NightState.SKIPPED),
        (["queued"], True, 2 * DAY + HOUR, NightState.QUEUED),
        (["queued"], False, 2 * DAY + HOUR, NightState.MISSING),
    ],
)
def test_states(records: list[str], busy: bool, now: float, state: NightState) -> None:
    made = [record(RecordKind(kind), "2026-11-30", 2 * DAY) for kind in records]

    assert nights_of(*made, now=now, busy=busy)[-1].state is state


@pytest.mark.parametrize(
    "status, state",
    [
        ("succeeded", NightState.DONE),
        ("degraded", NightState.DEGRADED),
        ("failed", NightState.FAILED),
        ("stopped", NightState.FAILED),
        ("", NightState.FAILED),
    ],
)
def test_a_finished_night_is_as_its_run_was(status: str, state: NightState) -> None:
    done = record(RecordKind.FINISHED, "2026-11-30", NOW, status=status)

    assert nights_of(done)[-1].state is state


def test_a_missing_night_alarms_once() -> None:
    later = 2 * DAY + HOUR
    before = [record(RecordKind.SKIPPED, n.night) for n in DUE[:2]]
    seen = [record(RecordKind.ALARMED, n.night, reason="skipped") for n in DUE[:2]]

    missing = nights_to_alarm(nights_of(*before, *seen, now=later), 0.0)
    known = record(RecordKind.ALARMED, "2026-11-30", later, reason="missing")
    again = nights_to_alarm(nights_of(*before, *seen, known, now=later), 0.0)

    assert [(n.night, alarm_name(n)) for n in missing] == [("2026-11-30", "missing")]
    assert again == ()


def test_a_late_night_alarms_although_it_is_done() -> None:
    began = record(RecordKind.STARTED, "2026-11-30", 2 * DAY + HOUR)
    done = record(RecordKind.FINISHED, "2026-11-30", 2 * DAY + 2 * HOUR, status="succeeded")

    night = nights_of(began, done)[-1]

    assert night.is_late
    assert (night.state, alarm_name(night)) == (NightState.DONE, "late")


kinds = st.sampled_from([kind for kind in RecordKind if kind is not RecordKind.ALARMED])


@given(
    st.lists(st.tuples(kinds, st.sampled_from(DUE)), max_size=8),
    st.floats(0, 4 * DAY),
    st.booleans(),
    st.sampled_from(Overlap),
)
def test_a_wake_up_never_begins_two_at_once_or_an_old_night(
    made: list[tuple[RecordKind, DueNight]], now: float, busy: bool, overlap: Overlap
) -> None:
    records = [record(kind, due.night, due.due) for kind, due in made]

    decision = decide(*records, now=now, busy=busy, overlap=overlap)

    latest = max((each for each in DUE if each.due <= now), key=lambda each: each.due)
    assert decision.night in ("", latest.night)
    if busy:
        assert decision.action is not WakeAction.START
    last = [kind for kind, due in made if due.night == latest.night][-1:]
    if last and last[0] is not RecordKind.QUEUED:
        assert decision.action is WakeAction.NOTHING


@given(st.integers(0, 59), st.integers(-14 * 4, 14 * 4))
def test_an_entry_wakes_at_the_minute_of_every_zone(minute: int, quarters: int) -> None:
    assert (minute + 15 * quarters) % 60 in wake_minutes(minute)


@given(st.text("abc-", min_size=1, max_size=9), st.floats(0, 1800))
def test_jitter_is_bounded_and_the_same_for_a_night(name: str, most: float) -> None:
    one = schedule(name=name, jitter_s=most)

    assert 0 <= one.jitter_of("2026-11-30") <= most
    assert one.jitter_of("2026-11-30") == one.jitter_of("2026-11-30")
