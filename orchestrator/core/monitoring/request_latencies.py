"""Latencies of a load test's requests as histograms. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.core.monitoring import serving_metrics as metrics
from orchestrator.core.monitoring.metric import MetricFamily, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTimes:
    """A request that succeeded; seconds. ``first``: to the first token, from the scheduled send as
    ``latency`` is; None where no token came. ``token``: for each output token after the first.
    """

    latency: float
    first: float | None
    token: float | None


class _Histogram:
    def __init__(self, metric: MetricFamily) -> None:
        self._metric = metric
        self._counts = [0.0] * (len(metric.bounds) + 1)
        self._sum = 0.0

    def add(self, value: float | None) -> None:
        if value is not None:
            self._counts[bisect_left(self._metric.bounds, value)] += 1
            self._sum += value

    def sample(self, run: str) -> Sample:
        return self._metric.histogram(self._counts, self._sum, run)


class RequestLatencies:
    """Counts requests one by one, in memory that does not grow with them."""

    def __init__(self) -> None:
        self.failed = 0
        self._latency = _Histogram(metrics.REQUEST_LATENCY)
        self._first = _Histogram(metrics.FIRST_TOKEN)
        self._token = _Histogram(metrics.OUTPUT_TOKEN)

    def add(self, times: RequestTimes | None) -> None:
        """None: the request failed; it is in no latency."""
        if times is None:
            self.failed += 1
            return
        self._latency.add(times.latency)
        self._first.add(times.first)
        self._token.add(times.token)

    def samples(self, run: str) -> Iterator[Sample]:
        """Three histograms, and how many failed."""
        for histogram in (self._latency, self._first, self._token):
            yield histogram.sample(run)
        yield metrics.REQUESTS_FAILED.sample(self.failed, run)
