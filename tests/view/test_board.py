"""The display's state: who is how far, how fast, and what is news."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.base.problem import Problem
from orchestrator.core.run.events import RoundClosed
from orchestrator.core.run.kit_reports import Reported
from orchestrator.view.progress.board import Board, Progress
from orchestrator.view.progress.narrate import Weight, narrate_event
from tests.core.world import World, request
from tests.view.test_views import progress, steps


def test_the_board_shows_the_rank_that_is_furthest_behind() -> None:
    """A node is as far as its slowest rank, the run as its slowest node."""
    board = Board()
    *_, (_, _, state) = steps(World(request("a", "b")))
    for event in [progress("a", 0, 30), progress("b", 1, 10), progress("a", 0, 40)]:
        board.update(1.0, event, state)
    figure = Reported(node="b", rank=1, name="gap", value=2.0, unit="", step=3)
    board.update(2.0, figure, state)
    rows = {row.node: row for row in board.rows()}
    done = {name: row.progress.done for name, row in rows.items() if row.progress}
    assert done == {"a": 40, "b": 10}
    assert rows["b"].fields == "loss 0.5312  gap 2"
    overall = board.overall()
    assert overall is not None
    assert overall.done == 10


def test_a_slow_step_counts_by_the_time_that_it_took() -> None:
    """Ten units in a second, then one in nine: 1.1 a second and not five."""
    now = Progress(0.0, 100.0, "step", at=0.0)
    assert now.rate is None
    for done, at in ((10.0, 1.0), (11.0, 10.0)):
        now.advance(Progress(done, 100.0, "step", at=at))
    assert now.rate == pytest.approx((0.7 * 10 + 1) / (0.7 * 1 + 9))


def test_a_node_that_is_lost_holds_up_nobody_on_the_board() -> None:
    """The others go on, and so does what is told of them."""
    board = Board()
    *_, (_, _, state) = steps(World(request("a", "b")))
    board.update(1.0, progress("b", 1, 10), state)
    lost = replace(state.nodes["b"], lost=Problem(id="OR-LINK-001", message="gone"))
    state = replace(state, nodes=state.nodes.with_item("b", lost))
    board.update(2.0, progress("a", 0, 40), state)
    overall = board.overall()
    assert overall is not None
    assert overall.done == 40


def test_who_is_missing_from_rounds_is_told_once() -> None:
    """As a problem; after that only who asks for details hears of it again."""
    *_, (_, _, state) = steps(World(request("a", "b")))

    def told(number: int, *missing: str) -> Weight:
        nonlocal state
        event = RoundClosed(round=number, step=number, weights=(("a", 12),), missing=missing)
        state = replace(state, rounds=(*state.rounds, event))
        line = narrate_event(event, state)
        assert line is not None
        assert ("without" in line.text) is bool(missing)
        return line.weight

    weights = [told(1), told(2, "b"), told(3, "b"), told(4), told(5, "b")]
    news, usual = Weight.PROBLEM, Weight.DETAIL
    assert weights == [usual, news, usual, usual, news]
