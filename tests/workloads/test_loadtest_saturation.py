"""Over-saturation: never at 0.8 times the capacity, always and soon at 2 and 4 times."""

from __future__ import annotations

import heapq
from random import Random

import pytest

from loadtest.base.arrivals import POISSON, OpenLoad, arrival_times
from loadtest.base.stages import Saturation
from loadtest.judge.saturation import SaturationWatch

DURATION_S = 120.0
LOOK_S = 0.1


def simulate(seed: int, factor: float, capacity: float, slots: int) -> Saturation | None:
    """A server with ``slots`` places that completes ``capacity`` requests/s, exponentially long
    each, under Poisson arrivals of ``factor`` times that; what the watch finds.
    """
    random = Random(f"server-{seed}")
    rate = capacity * factor
    load = OpenLoad(spacing=POISSON, rate=rate, final_rate=rate, duration_s=DURATION_S)
    free = [0.0] * slots
    events: list[tuple[float, int, float]] = []
    for arrival in arrival_times(load, seed):
        start = max(arrival, heapq.heappop(free))
        end = start + random.expovariate(capacity / slots)
        heapq.heappush(free, end)
        events += [(arrival, 1, 0.0), (start, 0, start - arrival), (end, -1, 0.0)]
    return watch(sorted(events), rate)


def watch(events: list[tuple[float, int, float]], rate: float) -> Saturation | None:
    """Play (time, change of requests in flight or 0 for a first token, its TTFT)."""
    seen = SaturationWatch()
    in_flight, look = 0, 1
    for at_s, change, ttft_s in events:
        while look * LOOK_S < min(at_s, DURATION_S):
            seen.saw_in_flight(look * LOOK_S, in_flight)
            if look % 10 == 0 and (found := seen.check(look * LOOK_S, rate)):
                return found
            look += 1
        in_flight += change
        if not change:
            seen.saw_first_token(at_s, ttft_s)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("capacity, slots", [(25.0, 8), (25.0, 1), (2.0, 1)])
def test_no_false_alarm_in_a_hundred_runs_at_four_fifths(capacity: float, slots: int) -> None:
    assert [s for s in range(100) if simulate(s, 0.8, capacity, slots)] == []


@pytest.mark.parametrize("factor", [2.0, 4.0])
@pytest.mark.parametrize("capacity, slots", [(25.0, 8), (25.0, 1), (2.0, 1)])
def test_overload_is_found_in_time(factor: float, capacity: float, slots: int) -> None:
    for seed in range(10):
        found = simulate(seed, factor, capacity, slots)

        assert found is not None
        assert found.at_s <= DURATION_S
        assert found.backlog_per_s > 0.1 * found.rate


def test_a_server_that_answers_nothing_any_more_is_over_saturated() -> None:
    events = [(number / 20, 1, 0.0) for number in range(2000)]

    assert watch(events, 20.0) is not None


def test_fixed_concurrency_saturates_nothing() -> None:
    seen = SaturationWatch()
    for look in range(1, 600):
        seen.saw_in_flight(look * LOOK_S, 64)
        seen.saw_first_token(look * LOOK_S, 0.5)

    assert seen.check(60.0, 1000.0) is None
