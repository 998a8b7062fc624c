"""What is tried beside the fine-tuning engine: each trial tells its figures; one that fails costs
no other.
"""

from __future__ import annotations

import argparse
import json
import sys

import pytest
from bench_lib.programs import finetune_trials

pytestmark = pytest.mark.slow


def test_each_trial_tells_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: argparse.Namespace) -> finetune_trials.Figures:
        raise RuntimeError("no kernel")
        yield {}

    monkeypatch.setattr(finetune_trials, "graph", fails)
    monkeypatch.setattr(finetune_trials, "REPEATS", 1)
    words = ["passes", "graph", "attention", "--rows", "2", "--length", "8"]
    monkeypatch.setattr(sys, "argv", ["trials", *words])
    finetune_trials.main()
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    passes = {one["name"]: one for one in told if one["trial"] == "passes"}
    assert {"copy", "swiglu, rounded", "an adapter's columns"} <= passes.keys()
    assert all(one["ms"] > 0 for one in passes.values())
    assert [one for one in told if one["trial"] == "graph"] == [
        {"trial": "graph", "failed": "RuntimeError: no kernel"}
    ]
    apart = next(one["apart"] for one in told if "apart" in one)
    assert len(apart) == 4
    assert all(0 <= value < 1e-5 for value in apart)  # fp32 on both sides
