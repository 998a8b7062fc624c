"""What `scripts/gpu_check` says that sampling costs: a known cost is found, noise is no verdict."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from gpu_check_lib.sampling_cost import LIMIT, SETTLE_S, TURN_S, Change, TrainingStep, cost

TURNS = 24
STEP_S = 0.4


def changes() -> list[Change]:
    """On off, off on, as the thread makes them."""
    turns = [Change(number * TURN_S, number % 4 in {0, 3}) for number in range(TURNS)]
    return [*turns, Change(TURNS * TURN_S, None)]


def steps(loss: float, noise: float, drift: float = 0.0) -> Iterator[TrainingStep]:
    """Of a training that loses ``loss`` of its rate where the sampler runs, and becomes slower by
    ``drift`` from its first turn to its last.
    """
    random, t = Random(1), 0.0
    while t < TURNS * TURN_S:
        samples = int(t / TURN_S) % 4 in {0, 3}
        slower = (1 + drift * t / (TURNS * TURN_S)) * random.gauss(1, noise)
        seconds = STEP_S * slower / (1 - loss * samples)
        tokens = random.randint(7000, 8192)  # a step takes as long as it has tokens
        seconds *= tokens / 8192
        t += seconds
        yield TrainingStep(t, seconds, tokens)


@pytest.mark.parametrize("loss, verdict", [(0.0, True), (0.002, True), (0.03, False)])
def test_a_known_cost_is_found_under_noise_and_drift(loss: float, verdict: bool) -> None:
    found = cost(list(steps(loss, noise=0.003, drift=0.05)), changes())

    assert found["pairs"] == TURNS // 2
    assert found["loss"] == pytest.approx(loss, abs=0.002)
    assert found["interval_95"][0] < loss < found["interval_95"][1]
    assert found["verdict"] is verdict


def test_noise_is_no_verdict() -> None:
    found = cost(list(steps(LIMIT, noise=0.2)), changes())

    assert found["verdict"] is None


def test_steps_near_a_change_are_of_no_turn() -> None:
    """The sampler starts and ends in that time."""
    found = cost(list(steps(0.0, noise=0.0)), changes())

    assert found["steps"] <= TURNS * (TURN_S - SETTLE_S) / STEP_S
    assert cost([], changes())["verdict"] is None
