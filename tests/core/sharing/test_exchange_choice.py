"""Gradients where their exchange costs little, changes elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.sharing.exchange_choice import (
    MOST_IN_ALL_S,
    MOST_OF_A_STEP,
    NodeTrial,
    choose_exchange,
)
from orchestrator.core.sharing.rounds import Exchanged, Offered

FILE = Offered(name="trial.bin", bytes=4_000_000, sha256="a" * 64)
TRIAL = NodeTrial(step_s=1.0, steps=10_000, values=1_000_000, file=FILE)
seconds = st.floats(1e-4, 1e3)
trials = st.builds(
    NodeTrial,
    step_s=seconds,
    steps=st.integers(0, 10**6),
    values=st.integers(1_000, 10**9),
    file=st.just(FILE),
)


@pytest.mark.parametrize(
    "trial,sample_s,expected",
    [
        (TRIAL, 0.2, Exchanged.GRADIENTS),  # a fifth of a step
        (TRIAL, 0.3, Exchanged.CHANGES),
        (replace(TRIAL, step_s=10.0), 0.3, Exchanged.GRADIENTS),
        (replace(TRIAL, values=161_480_704), 0.1, Exchanged.CHANGES),  # 16 s
        (replace(TRIAL, values=161_480_704, step_s=80.0), 0.1, Exchanged.GRADIENTS),
        (replace(TRIAL, step_s=0.01, steps=200), 0.1, Exchanged.GRADIENTS),  # 20 s in all
        (replace(TRIAL, step_s=0.01, steps=2_000), 0.1, Exchanged.CHANGES),
        (replace(TRIAL, values=1_000, step_s=0.4), 0.1, Exchanged.GRADIENTS),
    ],
)
def test_what_an_exchange_costs_decides(
    trial: NodeTrial, sample_s: float, expected: Exchanged
) -> None:
    assert choose_exchange([trial], sample_s).exchanged is expected


@given(st.lists(trials, min_size=1, max_size=5), seconds)
def test_the_slowest_step_and_the_largest_gradient_count(
    several: list[NodeTrial], sample_s: float
) -> None:
    choice = choose_exchange(several, sample_s)

    assert choice.step_s == max(trial.step_s for trial in several)
    assert choice.exchange_s >= sample_s
    steps = max(trial.steps for trial in several)
    cheap = (
        choice.exchange_s <= MOST_OF_A_STEP * choice.step_s
        or choice.exchange_s * steps <= MOST_IN_ALL_S
    )
    assert (choice.exchanged is Exchanged.GRADIENTS) == cheap
    assert choose_exchange(several[::-1], sample_s) == choice


@given(trials, seconds, st.floats(1, 100))
def test_a_faster_way_never_speaks_against_gradients(
    trial: NodeTrial, sample_s: float, times: float
) -> None:
    slow, fast = (choose_exchange([trial], s).exchanged for s in (sample_s, sample_s / times))

    assert slow is Exchanged.CHANGES or fast is Exchanged.GRADIENTS
