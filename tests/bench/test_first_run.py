"""The benchmark of the first run: what it counts, and what it compares."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench_lib.first_run import REAPED, FirstRun, first_run_markdown, ratios

# Computes for a while in a process that nobody waits for.
LEAVES = """
import os, subprocess, sys, time
busy = "import time\\nwhile time.process_time() < 0.5: pass"
if sys.argv[1] == "busy":
    subprocess.Popen([sys.executable, "-c", busy], start_new_session=True)
sys.exit(int(sys.argv[2]))
"""


def reaped(file: Path, *argv: str) -> dict[str, float]:
    command = [sys.executable, str(REAPED), str(file), sys.executable, "-c", LEAVES, *argv]
    subprocess.run(command, check=True, timeout=60)
    taken: dict[str, float] = json.loads(file.read_text())
    return taken


@pytest.mark.processes
def test_what_a_command_leaves_behind_counts(tmp_path: Path) -> None:
    alone, busy = (reaped(tmp_path / word, word, "0") for word in ("idle", "busy"))

    assert busy["cpu_s"] > alone["cpu_s"] + 0.4
    assert alone["cpu_s"] < 0.5
    assert (busy["code"], busy["left"]) == (0, 0)


@pytest.mark.processes
def test_a_command_that_fails_is_known(tmp_path: Path) -> None:
    assert reaped(tmp_path / "file", "idle", "7")["code"] == 7


def run(commit: str, wall_s: float, cpu_s: float) -> FirstRun:
    gated = {"train_loss_final": 0.001, "function_call_exact_match": 0.96}
    return FirstRun(commit=commit, wall_s=wall_s, cpu_s=cpu_s, gated=gated)


def test_medians_are_compared() -> None:
    ours = [run("a", 10, 20), run("a", 40, 20), run("a", 500, 20)]
    others = [run("b", 100, 30), run("b", 90, 30), run("b", 80, 30)]

    assert ratios([*ours, *others], "a", "b") == pytest.approx({"wall": 40 / 90, "CPU": 2 / 3})
    text = first_run_markdown([*ours, *others], "a", "b")
    assert "met" in next(line for line in text.splitlines() if "wall, a / b" in line)
    assert "MISSED" in next(line for line in text.splitlines() if "CPU, a / b" in line)
