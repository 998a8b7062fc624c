"""What `scripts/gpu_check model` measures, and what `scripts/bench model` says of it."""

from __future__ import annotations

import pytest
from bench_lib.cost_model import Plans, Speed, missed, scores_markdown, speed_markdown
from gpu_check_lib.model import shares_of
from gpu_check_lib.model_points import EAGER, FINETUNE, INFERENCE, POINTS

from orchestrator.core.costs.checking import Score


def test_points_cover_what_is_promised() -> None:
    """At least 24, at least 8 held out by the rule, of each kind and number of GPUs."""
    held = [point for point in POINTS if point.held_out]
    assert len(POINTS) >= 24
    assert len(held) >= 8
    assert [POINTS.index(point) for point in held] == list(range(2, len(POINTS), 3))
    for points in (held, [point for point in POINTS if not point.held_out]):
        assert {point.gpus for point in points} == {1, 2, 4}
        assert {point.kind for point in points} == {FINETUNE, INFERENCE, EAGER}
        assert {bool(point.text) for point in points} == {False, True}
    assert len(set(POINTS)) == len(POINTS)


@pytest.mark.parametrize("gpus", [0, 1, 2, 4])
def test_each_point_is_measured_once(gpus: int) -> None:
    """By processes whose GPUs are not another one's; what needs more GPUs is left out."""
    for size in (1, 2, 4):
        shares = list(shares_of(size, gpus))
        measured = sorted(number for share in shares for number in share.points)
        enough = size <= max(gpus, 1)
        wanted = [n for n, point in enumerate(POINTS) if point.gpus == size]
        assert measured == (wanted if enough else [])
        used = [gpu for share in shares for gpu in share.gpus]
        assert len(used) == len(set(used))
        assert all(len(share.gpus) == (size if gpus else 0) for share in shares)


def score(**changes: float) -> Score:
    values = {"mape": 0.05, "bias": 0.0, "worst": 0.1, "inside": 0.9, "roofline_mape": 0.5}
    return Score(figure="step_s", points=13, **(values | changes))


def test_targets_of_held_out_points() -> None:
    """7 % and 85 %; a figure without a target misses none."""
    assert missed(score()) == []
    assert missed(score(mape=0.08)) == ["MAPE above 7 %"]
    assert missed(score(inside=0.8)) == ["inside below 85 %"]
    told = scores_markdown("h200.jsonl", 26, (score(mape=0.08),))
    assert "MAPE above 7 %" in told
    assert "50.0 %" in told


def test_speed_is_judged_by_its_targets() -> None:
    asked = Plans(what="that asks", with_ms=[305.0, 306.0, 304.0], without_ms=[300.0] * 3)
    offline = Plans(what="offline", with_ms=[230.0] * 3, without_ms=[210.0] * 3)
    speed = Speed(predictions_s=1.0, plans=[asked, offline])
    first, second, third = speed_markdown(speed).splitlines()[2:]
    assert "met" in first
    assert "5.0 ms" in second
    assert "MISSED" in third
    assert not speed.met
    assert Speed(predictions_s=1.0, plans=[asked]).met
