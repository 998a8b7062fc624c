"""The run that `scripts/bench steps` gives the state machine, and what it makes of the figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench_lib.steps import Steps, growth, replay_run, steps_markdown


def test_the_run_comes_to_its_end_and_is_counted() -> None:
    found = replay_run(3)
    of_each_node, of_the_run, head_reaches_itself = 12, 3, 1
    assert found.events == 3 * of_each_node + of_the_run - head_reaches_itself
    assert found.decided_s > 0
    assert found.watched_s > 0


def test_growth_and_a_missed_target_are_said() -> None:
    small = Steps(nodes=100, events=10, decided_s=0.001, watched_s=0.0)
    large = Steps(nodes=1000, events=100, decided_s=0.1, watched_s=5.8)
    assert growth([small, large]) == pytest.approx(1.0)
    text = steps_markdown([small, large])
    assert "1000 us" in text
    assert "5.90 ms" in text
    assert "nodes^1.00" in text
    assert "met" in text
    assert "MISSED" in steps_markdown([replace(large, watched_s=6.0)])
