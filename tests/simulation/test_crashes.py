"""The coordinator dies at every point of its life; whoever takes over reaches the same end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.coordinator import CrashPoint
from tests.simulation.simulation import SimulationPlan, simulate
from tests.simulation.supervisor import Script

PLANS = {
    "two nodes": SimulationPlan(),
    "locks, ranks by themselves": SimulationPlan(
        nodes=("a", "b"),
        gpus=1,
        with_torch=False,
        ranks_per_node=2,
        script=Script(steps=3, strays=True),
    ),
    "a rank fails": SimulationPlan(script=Script(steps=4, fails=((1, 1, 3),)), insist=False),
}
KINDS = (
    "before a write",
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
    plan = PLANS[name]
    undisturbed = simulate(plan)
    assert undisturbed.violations == []
    assert undisturbed.points[kind] >= 15

    for number in range(undisturbed.points[kind]):
        crash = CrashPoint(kind, number)
        report = simulate(replace(plan, crash=crash, silently=silently))

        assert report.violations == [], f"{crash}: {report.outcomes}"
        assert report.outcomes[0] == "Killed()", f"{crash} is never reached"
        assert report.facts == undisturbed.facts, f"{crash}: {report.outcomes}"
