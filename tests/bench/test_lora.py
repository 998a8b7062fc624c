"""`scripts/bench lora`: what it plans, what it keeps, and that its page is made of its table."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench_lib.finetuning.lora_table
import pytest
from bench_lib.base.errors import BenchError, Stopped
from bench_lib.cli import MODULES, main
from bench_lib.finetuning.lora_page import page
from bench_lib.finetuning.lora_table import (
    ALL_ROWS_BYTES,
    Plan,
    Planned,
    fill,
    merged,
    read_rows,
    rows_of,
    write_rows,
)
from bench_lib.programs.finetune_ranks import finite_loss

from tests.architecture.source import ROOT

DOCS = ROOT / "docs"
SIDE = {
    "kind": "side",
    "engine": "somehow",
    "lowest": 90.0,
    "highest": 110.0,
    "steps": 5,
    "peak_bytes": 2**34,
    "watts": 700.0,
    "tokens_per_joule": 10.0,
}
MACHINE = {"kind": "machine", "device": "NVIDIA H200", "torch": "2.11.0"}
ARITHMETIC = {"kind": "arithmetic", "flop_per_token": 30e9, "peak_flops": 1e15}


def plan(gpus: int, memory: int = ALL_ROWS_BYTES, models: tuple[str, ...] | None = None) -> Plan:
    return Plan(gpus, memory, (64, 16), models, unsloth=True, commit="abc")


def side(name: str, rate: float, losses: Sequence[float] = (2.0, 1.0)) -> dict[str, Any]:
    return SIDE | {"name": name, "tokens_per_s_per_gpu": rate, "losses": list(losses)}


def test_a_machine_is_asked_for_what_its_gpus_can_do() -> None:
    """Every row has its peer in the same start, or right before it where weights are shared."""
    one, four = list(plan(1).runs()), list(plan(4).runs())
    assert [(run.gpus, run.lora_rank) for run in one] == [(1, 64), (1, 64), (1, 16), (1, 16)]
    assert one[1].sides == ("unsloth",)
    assert {run.gpus for run in four} == {1, 2, 4}
    large = [run for run in four if run.model == "qwen2.5-72b"]
    assert [(run.sides, "--shared" in run.options) for run in large] == [(("ours",), True)] * 2
    for run in one + four:
        if "ours" in run.sides and "--shared" not in run.options:
            assert {"usual", "tuned"} < set(run.sides)
    assert "8" in one[0].options
    assert "8" not in next(plan(1, ALL_ROWS_BYTES - 1).runs()).options
    assert {run.model for run in plan(4, models=("qwen2.5-32b",)).runs()} == {"qwen2.5-32b"}


def test_rows_are_compared_within_their_machine_and_rank() -> None:
    run = Planned("qwen2-7b", 1, 64, ("usual", "ours"))
    bound = {"kind": "bound", "name": "ours", "tokens_per_s_per_gpu": 250.0}
    records = [MACHINE, ARITHMETIC, side("usual", 100.0), side("ours", 200.0, (2.0, 1.01)), bound]
    usual, ours = merged([], rows_of(run, records, "abc"))
    assert (usual["of_usual"], ours["of_usual"], ours["of_bound"]) == ("1.00", "2.00", "0.800")
    assert ours["mfu"] == "0.0060"  # 200 x 30e9 of 1e15
    assert ours["loss_apart"] == "0.01000"
    alone = [MACHINE, side("unsloth", 150.0)]
    rows = merged([usual, ours], rows_of(run, alone, "def"))
    assert [row["side"] for row in rows] == ["usual", "ours", "unsloth"]
    assert (rows[2]["mfu"], rows[2]["of_usual"]) == ("0.0045", "1.50")
    again = merged(rows, rows_of(run, [MACHINE, ARITHMETIC, side("usual", 50.0)], "ghi"))
    assert [row["of_usual"] for row in again] == ["1.00", "4.00", "3.00"]


def test_a_side_that_failed_has_a_row_without_figures() -> None:
    """Also where it had some before; with the end of its reason, on one line."""
    run = Planned("qwen2-7b", 1, 64, ("usual", "unsloth"))
    failed = {"kind": "failed", "name": "unsloth", "reason": "x" * 500 + "ValueError: the\nend"}
    before = rows_of(run, [MACHINE, ARITHMETIC, side("usual", 100.0), side("unsloth", 5.0)], "abc")
    rows = merged(before, rows_of(run, [MACHINE, failed], "def"))
    found = rows[1]
    assert [row["side"] for row in rows] == ["usual", "unsloth"]
    assert (found["tokens_per_s_per_gpu"], found["of_usual"], found["mfu"]) == ("", "", "")
    assert found["how"].startswith("failed: x")
    assert found["how"].endswith("xValueError: the end")
    assert len(found["how"]) < 220
    assert "| unsloth | failed" in page(rows, "table.csv")
    with pytest.raises(ValueError, match="nan at step 3"):
        finite_loss(math.nan, 3)
    assert finite_loss(2.5, 1) == 2.5


def test_what_was_measured_is_kept_when_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a line, in the second of four starts."""
    starts: list[str] = []

    def ranks(_: str, __: int, options: Sequence[str], out: Path, ___: float) -> int:
        starts.append(" ".join(options))
        told = [MACHINE, ARITHMETIC, side("usual", 100.0)]
        out.write_text("".join(json.dumps(line) + "\n" for line in told))
        if len(starts) == 2:
            with out.open("a") as stream:
                stream.write('{"kind": "side", "na')
            raise Stopped(signal.SIGINT)
        return 0

    monkeypatch.setattr(bench_lib.finetuning.lora_table, "run_ranks", ranks)
    table, log = tmp_path / "table.csv", tmp_path / "log.jsonl"
    two = Plan(1, ALL_ROWS_BYTES, (64, 16), None, unsloth=False, commit="abc")
    with pytest.raises(Stopped):
        fill(two, sys.executable, table, budget_s=1000, log=log)
    assert ["--lora-rank 64" in starts[0], "--lora-rank 16" in starts[1]] == [True, True]
    rows = read_rows(table)
    assert [(row["lora_rank"], row["side"]) for row in rows] == [("64", "usual"), ("16", "usual")]
    assert len(log.read_text().splitlines()) == 6
    assert not fill(two, sys.executable, table, budget_s=1)
    assert len(starts) == 2
    assert read_rows(table) == rows


def test_another_file_is_not_taken_for_the_table(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(BenchError, match="not a table"):
        read_rows(path)


def test_the_page_in_the_docs_is_made_of_the_table_there() -> None:
    table = DOCS / "lora-throughput.csv"
    rows = read_rows(table)
    assert {row["side"] for row in rows} >= {"usual", "tuned", "ours", "ours, fp8"}
    assert (DOCS / "lora-throughput.md").read_text() == page(rows, table.name)
    assert merged(rows, []) == rows


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = read_rows(DOCS / "lora-throughput.csv")
    write_rows(tmp_path / "new" / "table.csv", rows)
    assert read_rows(tmp_path / "new" / "table.csv") == rows


def test_each_benchmark_has_the_name_of_its_module(capsys: pytest.CaptureFixture[str]) -> None:
    """That alone is imported."""
    for name in MODULES:
        with pytest.raises(SystemExit, match="0"):
            main([name.replace("_", "-"), "--help"])
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(
        name.replace("_", "-") in said.rpartition("usage: bench [-h]")[2] for name in MODULES
    )
