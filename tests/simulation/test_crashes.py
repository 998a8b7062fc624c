"""The coordinator dies at every point of its life; whoever takes over reaches the same end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.simulation.coordinator import CrashPoint
from tests.simulation.simulation import Report, SimulationPlan, simulate
from tests.simulation.supervisor import Script

pytestmark = pytest.mark.slow

PLANS = {
    "two nodes": SimulationPlan(),
    "locks, ranks by themselves": SimulationPlan(
        nodes=("a", "b"),
        gpus=1,
        with_torch=False,
        ranks_per_node=2,
        script=Script(steps=3, strays=True),
    ),
}
FAILING = SimulationPlan(script=Script(steps=4, fails=((1, 1, 3),)), insist=False)
KINDS = (
    "before a write",
    "within a write",
    "after a write",
    "before an action",
    "after an action",
    "sent",
    "executed",
    "answered",
)


@pytest.mark.parametrize("silently", [False, True], ids=["killed", "power-cut"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PLANS)
def test_a_crash_anywhere_changes_nothing(name: str, kind: str, silently: bool) -> None:
    """Status, figures, nodes, logs, artifacts and points are those of the undisturbed run."""
    undisturbed = simulate(PLANS[name])
    for crash, report in crashed_at_each(PLANS[name], kind, silently=silently):
        assert report.facts == undisturbed.facts, f"{crash}: {report.outcomes}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_anywhere_leaves_the_cause(kind: str) -> None:
    """The rank that failed is named, whoever coordinated when it did. Others may have got further
    meanwhile.
    """
    undisturbed = simulate(FAILING)
    assert undisturbed.facts is not None
    assert undisturbed.facts.cause == ("OR-RUN-001", "b", 1)
    for crash, report in crashed_at_each(FAILING, kind, silently=False):
        assert report.facts is not None
        assert report.facts.cause == undisturbed.facts.cause, f"{crash}: {report.outcomes}"


def crashed_at_each(
    plan: SimulationPlan, kind: str, *, silently: bool
) -> Iterator[tuple[CrashPoint, Report]]:
    """The run once for each point of that kind, without violations."""
    points = simulate(plan).points[kind]
    assert points >= 15
    for number in range(points):
        crash = CrashPoint(kind, number)
        report = simulate(replace(plan, crashes=(crash,), silently=silently))
        assert report.violations == [], f"{crash}: {report.outcomes}"
        assert report.outcomes[0] == "Killed()", f"{crash} is never reached"
        yield crash, report
