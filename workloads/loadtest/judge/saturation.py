"""Is more asked for than the server can do? Then latencies measure only how long the test was.

While a server keeps up, requests in flight and TTFT vary around a level; beyond its capacity both
grow for as long as the load lasts. Both are averaged over blocks of time, much longer than a queue
remembers, and a line is fitted to the blocks. The load is over-saturating when the lower end of the
slope's t interval says that in-flight requests grow by more than ``LEAST_GROWTH`` of the arrivals,
and that TTFT grows, too. Requests in flight must have grown by ``LEAST_BACKLOG`` as well: a queue
of ten is no trend.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..base.stages import Saturation

BLOCKS = 10
# One-sided 99.95 % quantile of Student's t with BLOCKS - 2 = 8 degrees of freedom.
T_QUANTILE = 5.041
# A server that completes less than 90 % of what arrives, and is behind by more than a queue at
# 0.8 times its capacity is in any of the simulated runs of the tests.
LEAST_GROWTH = 0.1
LEAST_BACKLOG = 25.0
# Shorter looks cannot tell a burst from a trend; longer ones do not see a change.
LEAST_WINDOW_S, WINDOW_S = 10.0, 120.0
# What is kept are sums over so long.
LEVEL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A fitted slope, per second, and the lower end of its interval."""

    slope: float
    lower: float


def fit(values: Sequence[float], width_s: float) -> Trend:
    """The least-squares line through the means of ``BLOCKS`` neighbouring blocks."""
    centre = (len(values) - 1) / 2
    mean = math.fsum(values) / len(values)
    spread = math.fsum((place - centre) ** 2 for place in range(len(values)))
    slope = math.fsum((p - centre) * (v - mean) for p, v in enumerate(values)) / spread
    rest = math.fsum((v - mean - slope * (p - centre)) ** 2 for p, v in enumerate(values))
    error = math.sqrt(rest / (len(values) - 2) / spread)
    return Trend(slope=slope / width_s, lower=(slope - T_QUANTILE * error) / width_s)


@dataclass(slots=True)
class _Level:
    """The sum and number of the values of one short time."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.total += value
        self.count += 1


class SaturationWatch:
    """Fed with what happens; asked now and then. Memory and time are those of a few hundred
    numbers, however many requests there are.
    """

    __slots__ = ("_in_flight", "_ttfts")

    def __init__(self) -> None:
        self._in_flight: dict[int, _Level] = {}
        self._ttfts: dict[int, _Level] = {}

    def saw_in_flight(self, at_s: float, requests: int) -> None:
        """How many requests were due and not over; at regular times."""
        self._in_flight.setdefault(int(at_s / LEVEL_S), _Level()).add(requests)

    def saw_first_token(self, at_s: float, ttft_s: float) -> None:
        """A first token that arrived."""
        self._ttfts.setdefault(int(at_s / LEVEL_S), _Level()).add(ttft_s)

    def check(self, now_s: float, rate: float) -> Saturation | None:
        """Whether requests that arrive at this rate are more than the server can do."""
        for levels in (self._in_flight, self._ttfts):
            for gone in [at for at in levels if (at + 1) * LEVEL_S <= now_s - WINDOW_S]:
                del levels[gone]
        start = min(self._in_flight, default=0) * LEVEL_S
        width_s = (now_s - start) / BLOCKS
        if width_s * BLOCKS < LEAST_WINDOW_S:
            return None
        backlog = _trend(self._in_flight, start, width_s)
        if backlog is None or backlog.lower <= LEAST_GROWTH * rate:
            return None
        # A server that answers nothing any more has no TTFT, and needs none.
        silent = max(self._ttfts, default=0) * LEVEL_S < now_s - 2 * width_s
        waiting = _trend(self._ttfts, start, width_s)
        later = silent or (waiting is not None and waiting.lower > 0)
        if not later or backlog.slope * (now_s - start) < LEAST_BACKLOG:
            return None
        return Saturation(at_s=now_s, rate=rate, backlog_per_s=backlog.slope)


def _trend(levels: Mapping[int, _Level], start_s: float, width_s: float) -> Trend | None:
    """None unless every block has a value."""
    blocks = [_Level() for _ in range(BLOCKS)]
    for at, level in levels.items():
        middle = (at + 0.5) * LEVEL_S - start_s
        block = blocks[min(BLOCKS - 1, max(0, int(middle / width_s)))]
        block.total += level.total
        block.count += level.count
    if not all(block.count for block in blocks):
        return None
    return fit([block.total / block.count for block in blocks], width_s)
