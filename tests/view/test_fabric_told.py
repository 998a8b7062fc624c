"""What people read of the network between the nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.run.connectivity import FabricProbed, LinksBroken
from orchestrator.view.progress.narrate import Weight, narrate_event
from orchestrator.view.tables.plan_text import plan_lines
from tests.core.world import World, request


@pytest.mark.parametrize(
    "fields,weight,text",
    [
        ({"busbw_gbps": 1.2345}, Weight.RUN, "fabric proven in 7.5 s: gloo, 1.23 GB/s"),
        ({}, Weight.RUN, "fabric proven in 7.5 s: gloo"),
        ({"cached": True}, Weight.RUN, "fabric proven within the last day: gloo"),
        ({"reason": "it is slow"}, Weight.PROBLEM, "fabric proven in 7.5 s, but it is slow"),
        (
            {"ok": False, "reason": "vh2 \x1b[2J is cut off"},
            Weight.PROBLEM,
            "fabric probe of gloo failed after 7.5 s: vh2  is cut off",
        ),
    ],
)
def test_a_probe_is_one_line(fields: dict[str, object], weight: Weight, text: str) -> None:
    probed = FabricProbed(rung=CommMode.GLOO, ok=True, reason="", seconds=7.5)
    line = narrate_event(replace(probed, **fields), World(request("a")).state)  # type: ignore[arg-type]
    assert line is not None
    assert (line.weight, line.text) == (weight, text)


def test_broken_links_are_named_and_counted() -> None:
    links = tuple(("vh1", f"vh{number}") for number in range(2, 14))
    line = narrate_event(LinksBroken(links=links, seconds=15.2, at=1.0), World(request("a")).state)
    assert line is not None
    assert line.weight is Weight.PROBLEM
    assert line.text.startswith("no connection for 15.2 s and no progress: vh1 to vh2, vh1 to vh3")
    assert line.text.endswith("and 4 more")


def test_a_plan_says_that_the_fabric_is_probed() -> None:
    world = World(replace(request("a", "b"), launcher="direct"))
    world.run()
    plan = world.state.plan
    assert plan is not None
    told = "  fabric probe: an all-reduce over 2 ranks before launch"
    assert told not in list(plan_lines(plan, None))
    assert told in list(plan_lines(replace(plan, proves_fabric=True), None))
