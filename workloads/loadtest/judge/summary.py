"""From records to figures: latencies of what succeeded, rates of what was sent, failures apart.

Several senders have clocks of their own: rates are added up, percentiles come from all requests
together. Memory: five numbers a request, and a histogram for the gaps between tokens.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from ..base.records import STOPPED, RequestRecord
from .definitions import Definition
from .failed_requests import FailedRequests
from .percentiles import Histogram, certified, least_samples, percentile

PERCENTS = (50.0, 90.0, 95.0, 99.0, 99.9)
LATENCIES = ("ttft", "tpot", "ntpot", "request_latency")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """Service-level objectives in seconds; 0 = none."""

    ttft_s: float = 0.0
    tpot_s: float = 0.0
    latency_s: float = 0.0

    def met(self, ttft_s: float, tpot_s: float | None, latency_s: float) -> bool:
        """A request is good if it meets every objective; one token has no TPOT to miss."""
        pairs = ((self.ttft_s, ttft_s), (self.tpot_s, tpot_s or 0.0), (self.latency_s, latency_s))
        return all(not limit or value <= limit for limit, value in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """One percentile in seconds. ``certified``: MLPerf's early-stopping estimate, None when there
    are fewer than ``needs`` values; gaps between tokens depend on each other and have none.
    """

    percent: float
    value: float
    certified: float | None = None
    needs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A latency over all requests that succeeded, in seconds."""

    name: str
    count: int
    mean: float
    percentiles: tuple[Percentile, ...]

    def at(self, percent: float) -> float:
        """Raises ``StopIteration`` for one that is not among ``PERCENTS``."""
        return next(each.value for each in self.percentiles if each.percent == percent)


@dataclass(slots=True)
class _Sent:
    """What one sender sent and received."""

    sent: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    good: int = 0
    completed: int = 0
    schedule_s: float = 0.0
    first_sent_s: float = math.inf
    last_sent_s: float = -math.inf
    last_end_s: float = -math.inf

    @property
    def window_s(self) -> float:
        """From the first request sent to the last response."""
        return max(self.last_end_s - self.first_sent_s, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Per second, added up over senders, each by its own window: first send to last response."""

    requests: float
    output_tokens: float
    total_tokens: float
    goodput: float


class Summary:
    """Takes records in, gives figures out. Records of any sender, in any order."""

    def __init__(self, definition: Definition, objectives: Objectives) -> None:
        self.definition, self.objectives = definition, objectives
        self.failures = FailedRequests()
        self.lags_s = array("d")
        self.completed = 0
        self.good = 0
        self.output_tokens = 0
        self.prompt_tokens = 0
        self._values = {name: array("d") for name in LATENCIES}
        self._gaps = Histogram()
        self._senders: dict[str, _Sent] = {}

    @property
    def total(self) -> int:
        """Every request of the schedule that has an outcome."""
        return self.completed + self.failed

    @property
    def failed(self) -> int:
        return self.failures.count

    def expect(self, sender: str, schedule_s: float) -> None:
        """How long a sender sent: of a load that was cut short not equally long."""
        self._senders.setdefault(sender, _Sent()).schedule_s = schedule_s

    def add(self, sender: str, record: RequestRecord) -> None:
        """One outcome. A failed request counts as such, and in nothing else but what was sent."""
        own = self._senders.setdefault(sender, _Sent())
        if record.sent:
            own.sent += 1
            own.first_sent_s = min(own.first_sent_s, record.sent_s)
            own.last_sent_s = max(own.last_sent_s, record.sent_s)
            self.lags_s.append(record.lag_s)
        if record.failure == STOPPED:
            return
        if not record.succeeded:
            self.failures.add(record)
            return
        self.completed += 1
        own.completed += 1
        own.last_end_s = max(own.last_end_s, record.end_s)
        self._add_latencies(own, record)

    def _add_latencies(self, own: _Sent, record: RequestRecord) -> None:
        definition = self.definition
        ttft, latency = definition.ttft(record), definition.latency(record)
        tpot = definition.tpot(record)
        figures = (ttft, tpot, definition.ntpot(record), latency)
        for name, value in zip(LATENCIES, figures, strict=True):
            if value is not None:
                self._values[name].append(value)
        for gap in definition.itls(record):
            self._gaps.add(gap)
        good = self.objectives.met(ttft, tpot, latency)
        own.good += good
        self.good += good
        own.output_tokens += record.output_tokens
        own.prompt_tokens += record.prompt_tokens
        self.output_tokens += record.output_tokens
        self.prompt_tokens += record.prompt_tokens

    def ordered(self) -> dict[str, list[float]]:
        """The values of each latency that any request has, ascending."""
        return {name: sorted(values) for name, values in self._values.items() if values}

    def spreads(self) -> list[Spread]:
        """Each latency that any request has."""
        found = [_spread(name, values) for name, values in self.ordered().items()]
        if self._gaps.count:
            found.insert(1, _gap_spread(self._gaps))
        return found

    def rates(self) -> Rates:
        """What came back per second."""
        senders = [each for each in self._senders.values() if each.completed]
        return Rates(
            requests=sum(each.completed / each.window_s for each in senders),
            output_tokens=sum(each.output_tokens / each.window_s for each in senders),
            total_tokens=sum(
                (each.output_tokens + each.prompt_tokens) / each.window_s for each in senders
            ),
            goodput=sum(each.good / each.window_s for each in senders),
        )

    @property
    def delivered_rate(self) -> float:
        """Requests sent per second of a sender's schedule, or of the time that it took to send
        them, if that is longer; all senders added up.
        """
        return sum(
            each.sent / max(each.schedule_s, each.last_sent_s, 1e-9)
            for each in self._senders.values()
            if each.sent
        )

    def lag(self, percent: float) -> float | None:
        """How late requests were sent, in seconds; None if none was."""
        return percentile(sorted(self.lags_s), percent) if self.lags_s else None

    @property
    def good_fraction(self) -> float:
        """Requests that meet every objective, of all: a failed one is not good."""
        return self.good / self.total if self.total else 0.0


def _spread(name: str, ordered: Sequence[float]) -> Spread:
    return Spread(
        name=name,
        count=len(ordered),
        mean=math.fsum(ordered) / len(ordered),
        percentiles=tuple(
            Percentile(
                percent=percent,
                value=percentile(ordered, percent),
                certified=certified(ordered, percent),
                needs=least_samples(percent),
            )
            for percent in PERCENTS
        ),
    )


def _gap_spread(gaps: Histogram) -> Spread:
    return Spread(
        name="itl",
        count=gaps.count,
        mean=gaps.mean,
        percentiles=tuple(
            Percentile(percent=percent, value=gaps.percentile(percent)) for percent in PERCENTS
        ),
    )
