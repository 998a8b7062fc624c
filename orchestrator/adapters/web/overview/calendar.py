"""A schedule's nights as a calendar: weeks of days, each green, amber, red or missing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from orchestrator.core.nightly.nights import Night, NightState

WEEKS = 6
_TONES = {
    NightState.DONE: "good",
    NightState.FAILED: "bad",
    NightState.MISSING: "missing",
    NightState.HALF_DONE: "bad",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarDay:
    """``label``: how the night was, in words; empty where none was due."""

    day: date
    tone: str = ""
    label: str = ""
    run_id: str = ""
    reason: str = ""


def night_weeks(nights: Sequence[Night], today: date) -> tuple[tuple[CalendarDay, ...], ...]:
    """The ``WEEKS`` weeks that end with the one of ``today``, from Monday on."""
    known = {night.night: night for night in nights}
    last = today + timedelta(days=6 - today.weekday())
    first = last - timedelta(days=7 * WEEKS - 1)
    days = [_day(first + timedelta(days=index), known) for index in range(7 * WEEKS)]
    return tuple(tuple(days[week * 7 : week * 7 + 7]) for week in range(WEEKS))


def _day(day: date, nights: Mapping[str, Night]) -> CalendarDay:
    night = nights.get(day.isoformat())
    if night is None:
        return CalendarDay(day=day)
    return CalendarDay(
        day=day,
        tone=night_tone(night),
        label=f"{night.state.value}, late" if night.is_late else night.state.value,
        run_id=night.run_ids[-1] if night.run_ids else "",
        reason=night.reason,
    )


def night_tone(night: Night) -> str:
    """``good``, ``odd``, ``bad`` or ``missing``: done but late, or not yet done, is odd."""
    tone = _TONES.get(night.state, "odd")
    return "odd" if tone == "good" and night.is_late else tone
