"""Which direction a reported figure has: that of the declared metric whose name begins its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.model.workload import Direction, Gate, Metric, Workload
from orchestrator.core.run.state import Figure, new_state
from orchestrator.core.verdict.result import Verdict
from orchestrator.core.verdict.verdict import conclude_run
from tests.core.world import request

WORKLOAD = Workload(
    name="w",
    source="-",
    folder="-",
    entry="w.py",
    metrics={
        "rate": Metric(name="rate", unit="1/s", direction=Direction.HIGHER, gate=Gate(min=5.0)),
        "rate.wait": Metric(name="rate.wait", unit="s", direction=Direction.LOWER),
    },
)


@pytest.mark.parametrize(
    "name, direction, unit",
    [
        ("rate", Direction.HIGHER, "1/s"),
        ("rate.bf16.batch8", Direction.HIGHER, "1/s"),
        ("rate.wait.p99", Direction.LOWER, "s"),
        ("rates.bf16", Direction.INFO, "own"),
        ("rate.a", Direction.INFO, "1/s"),
        ("rate.a.0", Direction.INFO, "1/s"),
        ("rate.ab", Direction.HIGHER, "1/s"),
    ],
)
def test_a_suffix_keeps_the_direction_and_takes_no_gate(
    name: str, direction: Direction, unit: str
) -> None:
    """Except that of a node, ``a``: it is shown beside the whole, and not judged."""
    state = replace(
        new_state(request("a", "b", workload=WORKLOAD)),
        figures={name: Figure(rank=0, value=1.0, unit="own")},
    )
    metric = conclude_run(state, timings={}, report="").metrics[name]

    assert (metric.direction, metric.unit) == (direction, unit)
    assert metric.verdict is (Verdict.FAIL if name == "rate" else Verdict.UNGATED)
