"""A profile of real operators by the kit: between steps, out of measured windows, told as it is."""

from __future__ import annotations

import atexit
import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.core.captures.profile import profile_figures
from orchestrator.parsing.captures.profiled import parse_profile
from workloads.orchestrate_kit import _collectives, _profile, _windows
from workloads.orchestrate_kit._trace import kernels_of

PRODUCTS = 3


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATE_OUTPUT_DIR", str(tmp_path))
    monkeypatch.setenv("ORCHESTRATE_REPORT_DIR", str(tmp_path))
    return tmp_path


def written(outputs: Path) -> dict[str, Any]:
    document = json.loads((outputs / "captures/profile/rank-0.json").read_text())
    assert isinstance(document, dict)
    return document


def step() -> None:
    for _ in range(PRODUCTS):
        torch.mm(torch.ones(8, 8), torch.ones(8, 8))


def test_whole_steps_are_profiled_and_kept_out_of_windows(outputs: Path) -> None:
    profile = _profile.StepProfile(seconds=1e-9, after_s=0.0, chosen=True)
    window = _windows.MeasuredWindow("cpu")
    window.begin()
    window.count(tokens=1)
    profile.mark(in_window=True)
    assert profile.tell()
    assert written(outputs)["reason"] == _profile.NOT_ENDED
    assert not window.is_open
    step()
    window.count(tokens=100)
    profile.mark(in_window=True)
    assert not profile.tell()
    assert window.is_open
    step()  # is in no profile
    profile.mark(in_window=True)
    window.end()

    found = parse_profile((outputs / "captures/profile/rank-0.json").read_bytes())
    assert (found.reason, found.steps, found.device, found.asked) == ("", 1, "cpu", True)
    figures = profile_figures(found)
    assert figures is not None
    products = {kernel.name: kernel.count for kernel in figures.kernels}
    assert products["aten::mm"] == PRODUCTS
    with gzip.open(outputs / "captures/profile/rank-0.trace.json.gz") as file:
        assert json.load(file)["traceEvents"]
    (record,) = [json.loads(line) for line in (outputs / "rank-0.jsonl").read_text().splitlines()]
    assert record["work"] == {"tokens": 1}


def test_progress_begins_no_profile_inside_a_window() -> None:
    profile = _profile.StepProfile(seconds=1e-9, after_s=0.0, chosen=False)
    with _windows.measured_window("cpu"):
        for _ in range(3):
            profile.mark(in_window=False)
        assert not profile.tell()
    profile.mark(in_window=False)
    assert profile.tell()
    with _windows.measured_window("cpu") as later:
        assert not later.is_open
        for _ in range(2):
            profile.mark(in_window=False)
        assert later.is_open


def test_ranks_that_are_not_profiled_wait_for_the_trace_of_others(outputs: Path) -> None:
    """Their windows stay closed for the step after it, in which they wait."""
    profile = _profile.StepProfile(seconds=1e-9, after_s=0.0, chosen=False)
    states = []
    for _ in range(4):
        profile.mark(in_window=True)
        states.append(profile.tell())
    assert states == [True, True, False, False]
    assert not (outputs / "captures").exists()


def test_what_keeps_a_profile_from_beginning_is_said(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = _profile.StepProfile(seconds=1.0, after_s=1000.0, chosen=True)
    late.mark(in_window=True)
    assert (
        written(outputs)["reason"] == "the rank ended before 1000 s had passed since its first step"
    )
    monkeypatch.delitem(sys.modules, "torch")
    without = _profile.StepProfile(seconds=1.0, after_s=0.0, chosen=True)
    with _windows.measured_window("cpu") as window:
        without.mark(in_window=True)
        assert window.is_open
    assert not without.tell()
    assert parse_profile((outputs / "captures/profile/rank-0.json").read_bytes()).reason == (
        _profile.NO_TORCH
    )


def test_of_a_gpu_kernels_and_copies_are_taken_and_operators_are_not() -> None:
    events = [
        {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 1.0, "dur": 9, "pid": 1, "tid": 1},
        {"ph": "X", "cat": "kernel", "name": "gemm", "ts": 5.0, "dur": 4, "pid": 0, "tid": 7},
        {"ph": "X", "cat": "gpu_memcpy", "name": "copy", "ts": 3.5, "dur": 1, "pid": 0, "tid": 8},
        {"ph": "i", "cat": "kernel", "name": "gemm", "ts": 5.0},
    ]
    found = kernels_of({"traceEvents": events})
    assert found["device"] == "gpu"
    assert found["events"] == [[0.0, 1, 0, 0], [1.5, 4, 1, 1]]
    assert list(zip(found["names"], found["kinds"], strict=True)) == [
        ("copy", "copy"),
        ("gemm", "kernel"),
    ]


def test_what_the_plan_asks_decides_who_is_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _profile.wanted_profile() is None
    for value, local_rank, chosen in (("5@30", "0", True), ("5@30", "1", False)):
        monkeypatch.setenv("ORCHESTRATE_PROFILE", value)
        monkeypatch.setenv("LOCAL_RANK", local_rank)
        profile = _profile.wanted_profile()
        assert profile is not None
        assert profile.chosen is chosen


def test_collectives_are_counted_by_kind_where_they_are_wanted(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = _collectives.Account()
    monkeypatch.setattr(atexit, "register", lambda _: None)
    monkeypatch.setattr(_collectives, "_account", account)
    _collectives.collective("all-reduce", 8)
    assert not (outputs / "captures").exists()
    monkeypatch.setenv("ORCHESTRATE_CAPTURES", "power,nvlink")
    monkeypatch.setenv("WORLD_SIZE", "4")
    _collectives.collective("all-reduce", 8, count=2)
    _collectives.collective("all-reduce", 8)
    _collectives.collective("all-gather", 16, ranks=2)
    account.write()
    found = json.loads((outputs / "captures/collectives-0.json").read_text())
    assert found == [
        {"op": "all-reduce", "bytes": 8, "ranks": 4, "count": 3},
        {"op": "all-gather", "bytes": 16, "ranks": 2, "count": 1},
    ]
    with pytest.raises(ValueError, match="not a collective"):
        _collectives.collective("allreduce", 8)
