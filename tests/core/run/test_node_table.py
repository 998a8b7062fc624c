"""Counts that are carried from state to state are those that a new count gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.problem import Problem
from orchestrator.core.model.plan import Plan
from orchestrator.core.run.connectivity import Reached
from orchestrator.core.run.events import Collected, NodeConcluded, Prepared, Swept
from orchestrator.core.run.node_state import NodeState
from orchestrator.core.run.node_table import NodeTable
from tests.core.world import World, facts, request

NAMES = ("a", "b", "c", "d")
GONE = Problem(id="OR-1", message="gone")
problems = st.sampled_from([None, GONE])
states = st.builds(
    NodeState,
    connected=st.booleans(),
    stale=st.booleans(),
    facts=st.sampled_from([None, facts("a")]),
    synced=st.booleans(),
    prepared=st.sampled_from([None, Prepared(node="a", interpreter="python", modules={})]),
    reached=st.sampled_from([None, Reached(node="a", addresses=())]),
    launched=st.booleans(),
    concluded=st.sampled_from([None, NodeConcluded(node="a", clean=True)]),
    collected=st.sampled_from([None, Collected(node="a", files=0, bytes=0)]),
    swept=st.sampled_from([None, Swept(node="a", clean=True)]),
    problem=problems,
    lost=problems,
)


def plan_of_some() -> Plan:
    """A plan that uses two of the four nodes."""
    world = World(request("b", "c"))
    world.run()
    return world.state.require_plan()


@given(st.lists(st.tuples(st.sampled_from(NAMES), states)))
def test_the_tally_is_what_counting_anew_gives(changes: list[tuple[str, NodeState]]) -> None:
    plan, table = plan_of_some(), NodeTable({name: NodeState() for name in NAMES})
    for name, state in changes:
        assert table.tally  # so that it is carried on
        assert table.tally_of(plan)
        table = table.with_item(name, state)
        anew = NodeTable(dict(table))
        assert table.tally == anew.tally
        assert table.tally_of(plan) == anew.tally_of(plan)


@given(states)
def test_the_tally_says_what_the_state_says(state: NodeState) -> None:
    tally = NodeTable({"a": state}).tally
    assert tally.unsettled == (not state.settled)
    assert tally.ready == (state.connected and state.ready)
    assert tally.lost == (state.lost is not None)
    assert tally.undone == (state.swept is None and state.lost is None)


def test_shares_are_in_the_order_of_the_plan() -> None:
    world = World(request("b", "c", "d"))
    world.run()
    plan, nodes = world.state.require_plan(), world.state.nodes
    assert nodes.changed_shares(plan, nodes) == plan.nodes
    backwards = {"d": nodes["d"], "b": nodes["b"]}
    assert [share.name for share in nodes.changed_shares(plan, backwards)] == ["b", "d"]
