"""Where ranks meet, and what is told when nodes do not reach that place."""

from __future__ import annotations

from orchestrator.core.base.errors import ExitCode
from orchestrator.core.run.actions import Action, Reach
from orchestrator.core.run.connectivity import LinksProbed, Reached
from orchestrator.core.run.events import DeadlinePassed, Event, Phase
from orchestrator.core.verdict.result import Status
from orchestrator.core.verdict.verdict import conclude_run
from tests.core.world import World, request


def unreached(action: Action) -> list[Event]:
    assert isinstance(action, Reach)
    return [Reached(node=action.node, addresses=(), errors=("timed out",))]


def test_a_link_to_the_head_is_named_with_both_its_directions() -> None:
    """All nodes dial each other once the head was not reached; their word is the cause."""
    found = LinksProbed(
        reason="a and c cannot open a TCP connection to each other",
        seconds=7.0,
        links=(("a", "c"), ("c", "a")),
    )
    world = World(request("a", "b", "c"), {"Reach/c": unreached, "ProbeLinks": lambda _: [found]})
    world.run()
    failure = conclude_run(world.state, timings={}, report="").failure

    assert failure is not None
    assert failure.id == "OR-NET-001"
    assert failure.cause.startswith(f"{found.reason} (a was tried at 10.0.0.")
    assert "between a and c; to look again: orchestrate doctor --cluster test.yaml;" in (
        failure.remedy
    )
    assert failure.remedy.endswith("leave one of them out: --nodes '!c'")


def test_a_head_that_all_reach_needs_no_look_at_the_links() -> None:
    world = World(request("a", "b", "c"))
    world.run()
    assert "ProbeLinks" not in world.performed


def test_a_look_at_the_links_that_takes_too_long_does_not_hide_what_is_known() -> None:
    world = World(request("a", "b"), {"Reach/b": unreached, "ProbeLinks": lambda _: []})
    world.run(DeadlinePassed(phase=Phase.REACH, after_s=20.0))
    result = conclude_run(world.state, timings={}, report="")

    assert (result.status, result.exit_code) == (Status.FAILED, ExitCode.PREFLIGHT)
    assert result.failure is not None
    assert result.failure.cause.startswith("b cannot open a TCP connection to a")
    assert result.failure.remedy.endswith("--nodes '!b'")
