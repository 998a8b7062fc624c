"""Over-saturation: never at 0.8 times the capacity, always and soon at 2 and 4 times."""

from __future__ import annotations

import heapq
from random import Random

import pytest

from loadtest.base.arrivals import POISSON, OpenLoad, arrival_times
from loadtest.base.records import RequestRecord
from loadtest.base.stages import Saturation
from loadtest.judge.backlog import Backlog
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


def backlog(seed: int, *, rate: float, capacity: float, slots: int, duration_s: float) -> Backlog:
    """All of a stage on a server with ``slots`` places, each request ``slots / capacity`` long."""
    load = OpenLoad(spacing=POISSON, rate=rate, final_rate=rate, duration_s=duration_s)
    free = [0.0] * slots
    found = Backlog(duration_s)
    for arrival in arrival_times(load, seed):
        end = max(arrival, heapq.heappop(free)) + slots / capacity
        heapq.heappush(free, end)
        found.add(request(arrival, end))
    return found


def request(scheduled_s: float, end_s: float) -> RequestRecord:
    return RequestRecord(
        index=0,
        scheduled_s=scheduled_s,
        sent_s=scheduled_s,
        chunks_s=(end_s,),
        end_s=end_s,
        output_tokens=1,
    )


@pytest.mark.parametrize("duration_s", [0.5, 1.0, 3.0, 9.0, 30.0])
@pytest.mark.parametrize("factor", [1.5, 2.0, 4.0])
@pytest.mark.parametrize("capacity, slots", [(70.0, 8), (25.0, 1), (2.0, 1)])
def test_no_stage_is_so_short_that_an_overload_passes(
    capacity: float, slots: int, factor: float, duration_s: float
) -> None:
    for seed in range(10):
        stage = backlog(
            seed, rate=factor * capacity, capacity=capacity, slots=slots, duration_s=duration_s
        )

        assert not stage.keeps_up


def test_a_short_overload_is_measured() -> None:
    stage = backlog(0, rate=200.0, capacity=71.0, slots=8, duration_s=3.0)

    assert stage.saturation is not None
    assert stage.saturation.backlog_per_s == pytest.approx(129.0, rel=0.1)


@pytest.mark.parametrize("duration_s", [3.0, 10.0, 30.0])
@pytest.mark.parametrize("capacity, slots", [(100.0, 8), (100.0, 30), (37.0, 1)])
def test_a_server_that_has_enough_in_reserve_keeps_up(
    capacity: float, slots: int, duration_s: float
) -> None:
    """Also one whose answers take a tenth of the shortest stage."""
    stages = [
        backlog(seed, rate=30.0, capacity=capacity, slots=slots, duration_s=duration_s)
        for seed in range(20)
    ]

    assert sum(stage.keeps_up for stage in stages) >= 18
    assert not any(stage.saturation for stage in stages)


@pytest.mark.parametrize("latency_s", [2.0, 3.0, 4.0])
def test_answers_as_long_as_the_stage_prove_nothing(latency_s: float) -> None:
    """What is in flight grows as under overload, until the first of them is over."""
    stage = Backlog(3.0)
    for number in range(300):
        stage.add(request(number / 100, number / 100 + latency_s))

    assert not stage.keeps_up
    assert stage.saturation is None


def test_nothing_and_a_few_requests_prove_nothing() -> None:
    few = Backlog(10.0)
    for number in range(9):
        few.add(request(float(number), number + 0.1))

    assert not few.keeps_up
    assert not Backlog(0.0).keeps_up
