"""The history that `scripts/bench history` fills is one that the product reads."""

from __future__ import annotations

from pathlib import Path

from bench_lib.history import KEYS, Answer, Row, fill_history, history_markdown

from orchestrator.adapters.history.open_store import sqlite_history
from orchestrator.core.history.run_record import RunQuery


def test_a_filled_history_has_every_run_and_figure(tmp_path: Path) -> None:
    path = tmp_path / "home" / "history.sqlite"
    fill_history(path, 60, 3)
    store = sqlite_history(path)
    runs = store.read_runs(RunQuery(limit=1000))
    assert [run.run_id for run in runs] == [f"run-{number}" for number in reversed(range(60))]
    assert all(len(run.figures) == 3 for run in runs)
    series = store.read_series(runs[0].key, "figure0", 100)
    assert len(series.values) == 60 // KEYS
    assert store.read_result("run-59") is not None


def test_a_missed_target_is_said() -> None:
    fast = Answer(question="q", who="ours", wall_s=0.2, cpu_s=0.2, peak_mb=50.0)
    slow = Answer(question="q", who="MLflow", wall_s=3.0, cpu_s=3.0, peak_mb=300.0, ask_s=1.0)
    met = Row(question="q", ours=fast, theirs=slow)
    missed = Row(question="q", ours=slow, theirs=slow)
    assert (met.met, missed.met) == (True, False)
    assert "| met" in history_markdown([met])
    assert "MISSED" in history_markdown([missed])
