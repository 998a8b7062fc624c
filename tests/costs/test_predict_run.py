"""Predictions of plans, beside what runs measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.costs.cost_files import CostFiles, model_name
from orchestrator.adapters.costs.predict_run import (
    PredictionWriter,
    predict_plan,
    with_prediction,
)
from orchestrator.adapters.report.document import load_report
from orchestrator.adapters.report.html_report import render_html
from orchestrator.adapters.report.markdown import render_markdown
from orchestrator.adapters.report.result_json import parse_object, to_object
from orchestrator.core.base.errors import UsageError
from orchestrator.core.costs.job_prediction import JobPrediction
from orchestrator.core.run.events import Begun
from orchestrator.core.run.state import new_state
from orchestrator.core.verdict.prediction_scores import prediction_scores
from orchestrator.view.result.summary import summary_lines
from orchestrator.view.tables.plan_text import plan_lines
from tests.costs.planned import cost_files, planned, result_of


@pytest.fixture
def files(tmp_path: Path) -> CostFiles:
    return cost_files(tmp_path)


def prediction_of(files: CostFiles, *settings: str, gpu: str = "B200") -> JobPrediction:
    request, plan = planned(files, *settings, gpu=gpu)
    found = predict_plan(files, request, plan, {})
    assert found is not None
    return found


def test_a_fine_tune_is_predicted_as_it_was_measured(files: CostFiles) -> None:
    """Of Qwen2-7B, 2 x 4,096, on one H200: 404 ms, 20,117 tok/s, 43.8 GB, 689 W; and 409 ms on
    another day (docs/benchmarks.md). Generated conversations are short, and a fifth to a third of
    them is predicted; rows of own texts take longer at most.
    """
    settings = ("micro_batch=2", "accumulation=1")
    request, plan = planned(files, *settings, gpu="H200", gpus=1)
    found = predict_plan(files, request, plan, {})
    own = predict_plan(files, *planned(files, *settings, "dataset=d", gpu="H200", gpus=1), {})
    assert found is not None
    assert own is not None
    measured = {"tokens_per_s": 20_117, "peak_memory_bytes": 43.8e9, "watts": 689}
    for name, value in (*measured.items(), *(("step_time_p50", s) for s in (0.404, 0.409))):
        assert found.figures[name].low < value < found.figures[name].high
        assert found.figures[name].value == pytest.approx(value, rel=0.05)
        assert own.figures[name].low <= found.figures[name].low
    step, longer = (each.figures["step_time_p50"] for each in (found, own))
    assert longer.high > 1.1 * step.high
    apart = predict_plan(files, *planned(files, "packing=false", gpu="H200", gpus=1), {})
    assert apart is not None
    assert "packing=true" in apart.without


def test_a_plan_is_predicted_with_intervals(files: CostFiles) -> None:
    """Figures that follow from each other do: all steps take as long as each, tokens/s are those of
    8 x 2 x 4 rows of 4096 tokens, and the price is that of the time.
    """
    request, plan = planned(files, price=24.0)
    found = predict_plan(files, request, plan, {})
    assert found is not None
    figures = found.figures
    assert all(each.low < each.value <= each.high for each in figures.values())
    step = figures["step_time_p50"].value
    assert figures["training_s"].value == pytest.approx(100 * step)
    assert figures["tokens_per_s"].value == pytest.approx(8 * 8 * 4096 / step)
    assert figures["cost"].value == pytest.approx(100 * step * 24 / 3600)
    assert figures["cost"].unit == "USD"
    joules = 8 * figures["watts"].value * figures["training_s"].value
    assert figures["energy"].value == pytest.approx(joules)
    assert "NVIDIA B200" in found.basis


@pytest.mark.parametrize(
    "settings, gpu, why",
    [
        (("dtype=fp32",), "B200", "dtype"),
        (("fp8=true",), "B200", "fp8"),
        (("model=nobody/knows-this",), "B200", "nobody/knows-this"),
        ((), "Voodoo2", "Voodoo2"),
        ((), "A30", "A30 has 24 GB"),
        (("model=",), "B200", "included model"),
    ],
)
def test_what_is_not_known_is_said(
    files: CostFiles, settings: tuple[str, ...], gpu: str, why: str
) -> None:
    """No figure, and the reason in the plan's text."""
    found = prediction_of(files, *settings, gpu=gpu)
    assert found.figures == {}
    assert why in found.without
    _, plan = planned(files)
    assert any("nothing: " in line and why in line for line in plan_lines(plan, None, (), found))


def test_without_a_gpu_no_file_is_read(files: CostFiles) -> None:
    """Most plans are for this machine, which has none."""
    request, plan = planned(files, gpu="", gpus=0)
    found = predict_plan(files, request, plan, {})
    assert found is not None
    assert "no GPU is used" in found.without
    assert not files.layout.cost_tables.exists()


def test_other_workloads_are_not_predicted(files: CostFiles) -> None:
    request, plan = planned(files)
    workload = replace(request.job.workload, training=None)
    silent = replace(request, job=replace(request.job, workload=workload))
    assert predict_plan(files, silent, plan, {}) is None


def test_tables_come_from_the_cache_until_a_file_changes(files: CostFiles, tmp_path: Path) -> None:
    """A GPU's file in the project's folder counts before the bundled one, at once."""
    first = files.tables()
    assert files.tables() == first
    assert list(files.layout.cost_tables.glob("*.json"))
    own = tmp_path / "project" / "hardware" / "gpus" / "h200.yaml"
    own.parent.mkdir(parents=True)
    (bundled,) = (e.path for e in files.catalog.files("hardware/gpus") if e.name == "h200")
    twice = bundled.read_text().replace("{value: 4.8, unit: TB/s", "{value: 9.6, unit: TB/s")
    own.write_text(twice)
    assert files.tables().gpus["h200"].device.memory_bytes_s == 9.6e12
    own.write_text("name: x\n")
    with pytest.raises(UsageError, match="is missing"):
        files.tables()


def test_a_model_is_found_by_its_names_and_by_its_configuration(
    files: CostFiles, tmp_path: Path
) -> None:
    tables = files.tables()
    assert model_name("Qwen/Qwen2-7B-Instruct") == "qwen2-7b"
    assert files.shape(tables, "Qwen/Qwen2-7B-Instruct") == files.shape(tables, "qwen2-7b")
    folder = tmp_path / "model"
    folder.mkdir()
    config = {
        "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4,
        "intermediate_size": 128, "vocab_size": 512, "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    shape = files.shape(tables, str(folder))
    assert (shape.layers, shape.kv_heads, shape.head_size, shape.tied) == (2, 4, 16, True)
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": -1}))
    with pytest.raises(UsageError, match="hidden_size is -1"):
        files.shape(tables, str(folder))
    with pytest.raises(UsageError, match="qwen2-7b"):
        files.shape(tables, "qwen2-8b")


def test_a_run_is_predicted_once_when_its_plan_is_there(files: CostFiles) -> None:
    request, plan = planned(files)
    folder = files.layout.run("r1")
    folder.create()
    said: list[str] = []
    writer = PredictionWriter(files, folder, said.append)
    state = new_state(request)
    writer.on_event(1.0, Begun(), state)
    assert not folder.prediction.exists()
    for _ in range(2):
        writer.on_event(2.0, Begun(), replace(state, plan=plan))
    assert len(said) == 1
    assert "tok/s" in said[0]
    kept = folder.prediction.read_text()
    again = PredictionWriter(files, folder, said.append)
    again.on_event(3.0, Begun(), replace(state, plan=plan))
    assert folder.prediction.read_text() == kept
    assert len(said) == 1


def run_with(files: CostFiles, **measured: float) -> tuple[JobPrediction, list[str]]:
    """The prediction, and what is said of a run whose figures are these times the predicted ones;
    those without a prediction are given as they are.
    """
    request, plan = planned(files)
    folder = files.layout.run("r1")
    if not folder.path.exists():
        folder.create()
    PredictionWriter(files, folder, lambda _: None).on_event(
        1.0, Begun(), replace(new_state(request), plan=plan)
    )
    found = prediction_of(files)
    values = {
        name: factor * found.figures[name].value if name in found.figures else factor
        for name, factor in measured.items()
    }
    result = with_prediction(result_of(request, values), folder)
    assert parse_object(to_object(result), where="r") == result
    return found, list(result.warnings)


def test_a_figure_inside_of_its_interval_is_no_finding(files: CostFiles) -> None:
    _, warnings = run_with(files, tokens_per_s=1.01, step_time_p50=0.99, watts=1.0)
    assert warnings == []


@pytest.mark.parametrize(
    "ratios, cause",
    [
        ({"tokens_per_s": 0.5, "data_wait": 0.4}, "data wait, 40 % of a step"),
        ({"tokens_per_s": 0.5, "communication_wait": 0.3}, "waiting for other ranks, 30 %"),
        ({"tokens_per_s": 0.5, "watts": 0.6}, "clocks or throttling"),
        ({"tokens_per_s": 0.5}, "no wait was reported"),
        ({"step_time_p50": 2.0, "data_wait": 0.4}, "data wait, 40 %"),
        ({"tokens_per_s": 2.0}, "orchestrate model calibrate"),
        ({"peak_memory_bytes": 1.5}, "more than a training step"),
        ({"peak_memory_bytes": 0.5}, "computed again"),
    ],
)
def test_a_figure_outside_is_a_finding_with_its_cause(
    files: CostFiles, ratios: dict[str, float], cause: str
) -> None:
    _, warnings = run_with(files, **ratios)
    name = next(iter(ratios))
    (told,) = [warning for warning in warnings if warning.startswith(name)]
    assert cause in told
    apart = 100 * abs(ratios[name] - 1)
    assert f"{apart:.0f} %" in told


def test_measured_stands_beside_predicted_everywhere(files: CostFiles) -> None:
    """In the terminal's summary and in both reports, with the error."""
    request, plan = planned(files)
    folder = files.layout.run("r1")
    folder.create()
    PredictionWriter(files, folder, lambda _: None).on_event(
        1.0, Begun(), replace(new_state(request), plan=plan)
    )
    rate = prediction_of(files).figures["tokens_per_s"].value
    result = with_prediction(result_of(request, {"tokens_per_s": rate / 1.05}), folder)
    report = load_report(folder, result)
    for text in (
        "\n".join(summary_lines(result)),
        render_markdown(report),
        render_html(report),
    ):
        assert "error +5.0 %" in text
    (score,) = prediction_scores(result.predictions)
    assert (score.name, score.runs, score.inside) == ("tokens_per_s", 1, 1.0)
    assert score.mape == pytest.approx(0.05)


def test_a_damaged_prediction_changes_nothing(files: CostFiles) -> None:
    request, _ = planned(files)
    folder = files.layout.run("r1")
    folder.create()
    result = result_of(request, {"tokens_per_s": 1.0})
    assert with_prediction(result, folder) == result
    folder.prediction.write_text("{}")
    assert with_prediction(result, folder) == result
