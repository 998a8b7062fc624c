"""When nights are due: in the schedule's zone, whatever the host's is, over both changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.nightly.due_times import next_nights, past_nights
from orchestrator.core.nightly.schedule import Schedule
from orchestrator.parsing.inputs.nights.schedule_file import parse_at
from tests.core.nightly.test_nights import schedule

BERLIN = ZoneInfo("Europe/Berlin")
SPRING, AUTUMN = datetime(2027, 3, 28, tzinfo=BERLIN), datetime(2026, 10, 25, tzinfo=BERLIN)


@pytest.fixture(params=["UTC", "Europe/Berlin", "Asia/Kathmandu"])
def host_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The host's own zone, which must not matter."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


def seconds(moment: datetime) -> float:
    return moment.timestamp()


@pytest.mark.parametrize("change", [SPRING, AUTUMN])
def test_seoul_is_ten_o_clock_utc_over_both_changes(host_zone: str, change: datetime) -> None:
    start = change - timedelta(days=5)

    due = next_nights(schedule(), seconds(start), 10)

    moments = [datetime.fromtimestamp(each.due, UTC) for each in due]
    assert [(m.hour, m.minute) for m in moments] == [(10, 0)] * 10
    assert all(b - a == timedelta(days=1) for a, b in pairwise(moments))
    assert [each.night for each in due] == [f"{m:%Y-%m-%d}" for m in moments]


@pytest.mark.parametrize(
    "change, before, after", [(SPRING, (18, 0), (17, 0)), (AUTUMN, (17, 0), (18, 0))]
)
def test_berlin_keeps_its_wall_clock(
    host_zone: str, change: datetime, before: tuple[int, int], after: tuple[int, int]
) -> None:
    """19:00 local: 18:00 UTC in winter, 17:00 UTC in summer."""
    berlin = schedule(zone="Europe/Berlin")
    due = next_nights(berlin, seconds(change - timedelta(days=2)), 6)

    hours = {each.night: datetime.fromtimestamp(each.due, UTC).hour for each in due}
    day = change.date()
    assert hours[(day - timedelta(days=1)).isoformat()] == before[0]
    assert hours[day.isoformat()] == after[0]
    assert hours[(day + timedelta(days=1)).isoformat()] == after[0]


def test_an_hour_that_is_left_out_runs_once_at_the_end_of_the_gap(host_zone: str) -> None:
    night = schedule(zone="Europe/Berlin", at="30 2 * * *")

    due = next_nights(night, seconds(SPRING - timedelta(hours=12)), 2)

    first = datetime.fromtimestamp(due[0].due, BERLIN)
    assert (due[0].night, first.hour, first.minute) == ("2027-03-28", 3, 0)
    assert due[1].night == "2027-03-29"


def test_an_hour_that_is_repeated_runs_once(host_zone: str) -> None:
    night = schedule(zone="Europe/Berlin", at="30 2 * * *")

    due = next_nights(night, seconds(AUTUMN - timedelta(hours=12)), 2)

    assert [each.night for each in due] == ["2026-10-25", "2026-10-26"]
    assert datetime.fromtimestamp(due[0].due, UTC).hour == 0  # the first of the two


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),  # noqa: DTZ001 - made UTC below
    st.sampled_from(["Asia/Seoul", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
    st.integers(0, 23),
    st.integers(0, 59),
    st.floats(0, 1800),
)
def test_each_local_date_is_due_once(
    start: datetime, zone: str, hour: int, minute: int, jitter: float
) -> None:
    one = schedule(zone=zone, at=parse_at(f"{hour}:{minute:02d}"), jitter_s=jitter)

    due = next_nights(one, start.replace(tzinfo=UTC).timestamp(), 8)

    dates = [datetime.fromisoformat(each.night).date() for each in due]
    assert all(b - a == timedelta(days=1) for a, b in pairwise(dates))
    for each in due:
        nominal = datetime.fromtimestamp(each.due - one.jitter_of(each.night), ZoneInfo(zone))
        shown = nominal.hour * 60 + nominal.minute
        assert nominal.date().isoformat() == each.night
        assert 0 <= shown - (hour * 60 + minute) <= 60  # later only where the clock jumps


def test_past_nights_begin_with_the_schedule() -> None:
    now = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
    one: Schedule = schedule(since=now - 3 * 86400)

    assert [each.night for each in past_nights(one, now)] == [
        "2026-11-28",
        "2026-11-29",
        "2026-11-30",
    ]
