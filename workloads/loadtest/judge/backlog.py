"""Did the server keep up, as the records of a whole stage say? For stages of any length.

A server keeps up if, from the second quarter of the schedule to its last, neither latencies nor
what is in flight grow by more than ``LEAST_GROWTH``: of the time between, and of what arrives then.
By Little's law, in flight = rate x latency, one level belongs to the other. Few requests are in
flight by chance; of them short latencies are the proof, since a queue would have made them long.
What proves neither is too short.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from ..base.records import RequestRecord
from ..base.stages import Saturation
from .percentiles import percentile
from .saturation import LEAST_BACKLOG, LEAST_GROWTH

# Fewer do not show a tenth; and so many show whether what is in flight grows: with fewer, 3 of 100
# simulated runs at 1.5 times the capacity of a server with one place had a level.
LEAST_ARRIVALS, LEAST_FOR_LEVEL = 10, 50
# Beside the schedule: at 1.5 times the capacity the last quarter waits for a fourth of it.
BRIEF_PART = 1 / 16


@dataclass(slots=True)
class _Quarter:
    """A quarter of the schedule: seconds in flight of all requests, latencies of its arrivals."""

    start_s: float
    width_s: float
    in_flight_s: float = 0.0
    latencies_s: array[float] = field(default_factory=lambda: array("d"))

    def add(self, scheduled_s: float, end_s: float) -> None:
        stop_s = self.start_s + self.width_s
        self.in_flight_s += max(0.0, min(end_s, stop_s) - max(scheduled_s, self.start_s))
        if self.start_s <= scheduled_s < stop_s:
            self.latencies_s.append(end_s - scheduled_s)

    @property
    def in_flight(self) -> float:
        """How many requests were in flight on average."""
        return self.in_flight_s / self.width_s if self.width_s else 0.0

    @property
    def latency_s(self) -> float | None:
        """The median; None without arrivals."""
        return percentile(sorted(self.latencies_s), 50) if self.latencies_s else None


class Backlog:
    """Takes the records of a stage with a steady rate in, of any sender and in any order."""

    __slots__ = ("_arrived", "_early", "_ended", "_late", "_schedule_s")

    def __init__(self, schedule_s: float) -> None:
        quarter_s = schedule_s / 4
        self._schedule_s = schedule_s
        self._early = _Quarter(quarter_s, quarter_s)
        self._late = _Quarter(3 * quarter_s, quarter_s)
        self._arrived = self._ended = 0

    def add(self, record: RequestRecord) -> None:
        """One request, however it ended: one that timed out was in flight until then."""
        self._arrived += 1
        self._ended += record.end_s <= self._schedule_s
        self._early.add(record.scheduled_s, record.end_s)
        self._late.add(record.scheduled_s, record.end_s)

    @property
    def keeps_up(self) -> bool:
        """Whether that is proven."""
        late_s = self._late.latency_s
        if self._arrived < LEAST_ARRIVALS or not self._ended or late_s is None or self._slower:
            return False
        level = self._grew <= LEAST_GROWTH * self._arrived / 2
        brief = late_s <= BRIEF_PART * self._schedule_s
        return brief or (level and self._arrived >= LEAST_FOR_LEVEL)

    @property
    def saturation(self) -> Saturation | None:
        """That the server does not keep up; None unless that is proven."""
        if self.keeps_up or not self._slower or 2 * self._grew < LEAST_BACKLOG:
            return None
        return Saturation(
            at_s=self._schedule_s,
            rate=self._arrived / self._schedule_s,
            backlog_per_s=2 * self._grew / self._schedule_s,
        )

    @property
    def text(self) -> str:
        """What was seen."""
        return (
            f"{self._arrived} requests in {self._schedule_s:.3g} s, of which "
            f"{self._arrived - self._ended} were in flight at its end"
        )

    @property
    def _grew(self) -> float:
        """By how many requests from the second quarter to the last, half a schedule later."""
        return self._late.in_flight - self._early.in_flight

    @property
    def _slower(self) -> bool:
        """Whether latencies grew by more than that part of the time between their arrivals."""
        early_s, late_s = self._early.latency_s, self._late.latency_s
        if early_s is None or late_s is None:
            return False
        return late_s - early_s > LEAST_GROWTH * self._schedule_s / 2
