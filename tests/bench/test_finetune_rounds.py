"""Averaging without a network: of one node it changes nothing, and of two it is near."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench_lib
import pytest

from tests.time_limits import scaled

pytestmark = pytest.mark.slow

PROGRAM = Path(bench_lib.__file__).parent / "programs" / "finetune_rounds.py"


def told(*options: str) -> dict[str, dict[str, Any]]:
    argv = [sys.executable, str(PROGRAM), "--steps", "10", "--length", "32", *options]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=scaled(120))
    return {record["name"]: record for record in map(json.loads, done.stdout.splitlines())}


def test_one_node_that_is_averaged_with_nobody_trains_as_ever() -> None:
    found = told("--nodes", "1", "--every", "4", "--after", "2", "--learning-rate", "2e-3")
    whole = found["all rows"]
    for way in ("averaged", "averaged, scaled"):
        assert found[way]["curve"] == pytest.approx(whole["curve"], rel=1e-4)
        assert found[way]["of_healthy"] == pytest.approx(1, rel=1e-4)


def test_two_nodes_learn_and_are_no_copy_of_all_rows() -> None:
    found = told("--nodes", "2", "--every", "4", "--after", "2", "--learning-rate", "2e-3")
    for way in ("averaged", "averaged, scaled"):
        assert found[way]["curve"][-1] < found[way]["curve"][0]
        assert 0 < abs(found[way]["of_healthy"] - 1) < 0.1
    assert found["averaged"]["evaluation"] != found["averaged, scaled"]["evaluation"]
