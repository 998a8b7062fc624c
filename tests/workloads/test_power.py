"""The power workload: rounds that are whole, rows that were measured, a table without gaps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from orchestrate_serving.builtin.weights import Weights, random_weights, shape_of
from power.measuring import Row, measure_rows
from power.parameters import Parameters, batches_of, precisions_of
from power.rounds import Rounds
from power.run import main
from power.shapes import SHAPES, matrix_parameters, read_config
from power.table import markdown_document
from tests.time_limits import communicate
from tests.workloads.conftest import WORKLOADS
from tests.workloads.declared import declared

CPU = torch.device("cpu")
TINY = SHAPES["tiny"]
pytestmark = pytest.mark.slow


def tiny_weights() -> Weights:
    return random_weights(TINY, torch.float32, CPU, seed=0)


def test_every_round_answers_every_prompt_in_full() -> None:
    with closing(Rounds(tiny_weights(), 3, 5, 6)) as rounds:
        rounds.start()
        assert [rounds.answer(), rounds.answer()] == [3 * 6, 3 * 6]


@pytest.mark.parametrize(
    "failure, raised",
    [
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
        (ValueError("a fault"), RuntimeError),
    ],
)
def test_a_failure_in_the_engine_ends_the_round(
    failure: Exception, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise failure

    with closing(Rounds(tiny_weights(), 2, 5, 6)) as rounds:
        rounds.start()
        monkeypatch.setattr("orchestrate_serving.builtin.steps.decode", fail)
        with pytest.raises(raised, match=str(failure)):
            rounds.answer()


def test_a_batch_that_does_not_fit_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("orchestrate_serving.builtin.steps.Cache", refuse)
    (row,) = measure_rows(declared(Parameters, precisions="fp32", batches="2"), TINY, CPU)
    assert (row.batch, row.output_tokens_per_s) == (2, None)
    assert "did not fit into memory" in row.failure


def test_sizes_are_read_from_a_models_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    TINY.to_json_file(path)
    assert shape_of(read_config(path)) == shape_of(TINY)
    for change, why in (
        ({"model_type": None}, "no model_type"),
        ({"vocab_size": None}, "no vocab_size"),
        ({"model_type": "gpt2"}, "gpt2 is none of"),
        ({"hidden_size": 66}, "not a multiple"),
        ({"num_key_value_heads": 3}, "does not divide"),
    ):
        entries = {**json.loads(path.read_text()), **change}
        wrong = tmp_path / "wrong.json"
        wrong.write_text(json.dumps({k: v for k, v in entries.items() if v is not None}))
        with pytest.raises(ValueError, match=why):
            read_config(wrong)
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_config(path)


def test_parameters_are_those_of_transformers_without_norms_and_biases() -> None:
    with torch.device("meta"):
        model = LlamaForCausalLM(TINY)
    assert matrix_parameters(TINY) == sum(w.numel() for w in model.parameters() if w.dim() == 2)
    assert matrix_parameters(SHAPES["qwen2-7b"]) == pytest.approx(7.615e9, rel=1e-3)


def test_lists_are_checked() -> None:
    parameters = declared(Parameters, precisions="bf16, fp32", batches="1, 8")
    assert (precisions_of(parameters), batches_of(parameters)) == (["bf16", "fp32"], [1, 8])
    for name, value in (("precisions", "fp5"), ("precisions", ""), ("batches", "0"),
                        ("batches", "1,1"), ("batches", "1,x")):  # fmt: skip
        read = precisions_of if name == "precisions" else batches_of
        with pytest.raises(ValueError, match=f"--{name}"):
            read(declared(Parameters, **{name: value}))


def test_rows_are_measured_in_whole_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parameters = declared(Parameters, precisions="fp32", batches="1,3", seconds=0.05)
    one, three = measure_rows(parameters, TINY, CPU)
    for row, batch in ((one, 1), (three, 3)):
        assert row.seconds >= 0.05
        assert row.output_tokens > 0
        assert row.output_tokens % (batch * parameters.new_tokens) == 0
        assert (row.joules, row.why_not) == (None, "the job computes on a CPU")


def test_no_cell_of_the_table_is_empty_or_made_up() -> None:
    parameters = declared(Parameters, gpu_hour_price=3.6)
    rows = [
        Row(precision="bf16", batch=8, seconds=2.0, output_tokens=200, joules=800.0),
        Row(precision="bf16", batch=16, seconds=2.0, output_tokens=400, why_not="no counter"),
        Row(precision="bf16", batch=999, failure="cache did not fit into memory"),
    ]  # fmt: skip
    text = markdown_document(parameters, 7_615_000_000, "NVIDIA H200", rows)
    assert "(7.62 G parameters" in text
    assert "| $ per 1M output tokens |" in text
    assert "| bf16 | 8 | 100 | 400 | 0.25 | 4 | 10 |" in text
    assert "| bf16 | 16 | 200 | not measured | not measured | not measured | 5 |" in text
    assert "| bf16 | 999 | not measured |" in text
    assert "- bf16, batch 16: no counter" in text
    assert "did not fit" in text


@pytest.mark.processes
def test_the_script_writes_its_table(tmp_path: Path) -> None:
    options = ("--seconds=0.05", "--device=cpu", "--batches=2", "--precisions=fp32")
    process = subprocess.Popen(
        [sys.executable, str(WORKLOADS / "power" / "run.py"), *options],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    out, _ = communicate(process, 120)
    assert process.returncode == 0, out
    table = (tmp_path / "output" / "power_efficiency_baselines.md").read_text()
    assert re.search(r"^\| fp32 \| 2 \| [0-9.e+]+ \| not measured \|", table, re.MULTILINE)


@pytest.mark.parametrize(
    "option, why",
    [
        ("--config=config.json", "no model_type"),
        ("--config=nowhere.json", "nowhere.json"),
        ("--prompt-tokens=4000", "positions for 2048"),
        ("--batches=two", "expected a list of whole numbers from 1 on with commas"),
        ("--batches=1,1", "each once"),
        ("--precisions=fp8", "expected a list of fp32 and bf16 with commas"),
    ],
)
def test_mistakes_are_refused(
    option: str,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("sys.argv", ["run.py", option])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert why in capsys.readouterr().err
