"""A run on this machine, predicted by its plan and compared at its end: the whole way."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.costs import predict_run
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.store.run_list import read_result
from orchestrator.cli.main import main
from orchestrator.core.costs.job_prediction import JobPrediction, PredictedFigure

pytestmark = pytest.mark.processes

JOB = """
import json, os
from pathlib import Path

report = Path(os.environ["ORCHESTRATE_REPORT_DIR"]) / f"rank-{os.environ['RANK']}.jsonl"
figures = {"tokens_per_s": 50.0, "data_wait": 0.4}
with report.open("a") as file:
    for name, value in figures.items():
        record = {"type": "metric", "name": name, "value": value, "unit": "", "t": 1.0}
        file.write(json.dumps(record) + "\\n")
"""
WORKLOAD = """
name: job
entry: job.py
parameters:
  model: {type: str, default: qwen2-7b}
  n: {type: int, default: 1}
training:
  {model: model, rows: n, sequence: n, accumulation: n, global_rows: n, adapter_rank: n, steps: n}
"""


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How to run it."""
    folder = tmp_path / "project" / "workloads" / "job"
    folder.mkdir(parents=True)
    (folder / "job.py").write_text(JOB)
    (folder / "workload.yaml").write_text(WORKLOAD)
    cluster = tmp_path / "here.yaml"
    python, workdir = json.dumps(sys.executable), json.dumps(str(tmp_path / "node"))
    options = f"{{transport: local, gpus: 0, python: {python}, workdir: {workdir}}}"
    cluster.write_text(f"name: here\ndefaults: {options}\nnodes: [n1]\n")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    return ["run", "--cluster", str(cluster), "--workload", "job", "--launcher", "direct"]


def test_what_was_predicted_stands_beside_what_was_measured(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Kept before the launch, in the result afterwards; too slow is a warning with its cause."""
    rate = PredictedFigure(value=100.0, low=90.0, high=110.0, unit="tok/s")
    found = JobPrediction(figures={"tokens_per_s": rate}, basis="a test")
    monkeypatch.setattr(predict_run, "predict_plan", lambda *_: found)
    assert main([*words, "--run-id", "predicted"]) == 0
    told = capsys.readouterr()
    assert "predicted: 100 tok/s (90 to 110)" in told.err
    assert "predicted tokens_per_s: 100 tok/s" in told.out
    folder = Layout(tmp_path / "home").run("predicted")
    result = read_result(folder)
    assert result is not None
    (compared,) = result.predictions
    assert (compared.predicted, compared.measured, compared.inside) == (100.0, 50.0, False)
    (warning,) = result.warnings
    assert "50 % below" in warning
    assert "data wait, 40 % of a step" in warning
    assert "OUTSIDE" in folder.report_markdown.read_text()


def test_without_a_gpu_a_run_is_not_predicted(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says nothing of it."""
    assert main([*words, "--run-id", "plain"]) == 0
    assert "predicted" not in capsys.readouterr().out
    folder = Layout(tmp_path / "home").run("plain")
    assert "no GPU is used" in folder.prediction.read_text()
    result = read_result(folder)
    assert result is not None
    assert result.predictions == ()
