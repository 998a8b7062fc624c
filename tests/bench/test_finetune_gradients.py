"""The fused engine's gradients are no further from exact ones than the usual script's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bench_lib
import pytest

from tests.time_limits import scaled

pytestmark = pytest.mark.slow

PROGRAM = Path(bench_lib.__file__).parent / "programs" / "finetune_gradients.py"


def test_ours_are_as_near_as_the_usual_ones_and_fp8_is_within_its_rounding() -> None:
    argv = [sys.executable, str(PROGRAM), "--length", "64"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=scaled(120))
    told = {record["name"]: record for record in map(json.loads, done.stdout.splitlines())}
    apart = {name: record["apart"] for name, record in told.items() if name != "fp32"}
    assert 0 < apart["ours"]["all"] < 1.25 * apart["usual, autocast"]["all"]
    assert apart["ours"]["all"] < apart["ours, fp8"]["all"] < 20 * apart["ours"]["all"]
    for name, kinds in apart.items():
        assert abs(told[name]["loss"] / told["fp32"]["loss"] - 1) < 1e-3
        assert len(kinds) == 1 + 2 * 7
