"""Random plans of faults in a fake world: whatever happens, no invariant breaks."""

from __future__ import annotations

import pytest

from tests.simulation.cases import FOUND
from tests.simulation.plans import plan_of
from tests.simulation.simulation import simulate

CHUNKS = 10
SEEDS_PER_CHUNK = 40


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_faults(chunk: int) -> None:
    """I1 to I9 hold after every coordinator's end and when all is over."""
    for seed in range(chunk * SEEDS_PER_CHUNK, (chunk + 1) * SEEDS_PER_CHUNK):
        report = simulate(plan_of(seed))
        again = f"scripts/simulate --seed {seed} --trace"
        assert report.violations == [], f"{again}\n{report.outcomes}"


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_repaired(name: str) -> None:
    """Plans that once broke an invariant; all of them end well."""
    report = simulate(FOUND[name])

    assert report.violations == []
    assert report.outcomes[-1] == "succeeded (0)"


def test_a_seed_is_one_run() -> None:
    """The same seed gives the same events at the same moments: a failure can be repeated."""
    for seed in (3, 5, 17):
        first, second = (simulate(plan_of(seed), trace=True) for _ in range(2))
        assert first.trace == second.trace
        assert first.steps == second.steps
