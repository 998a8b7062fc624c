"""Predictions of planned inference, beside what runs measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapters.costs.cost_files import CostFiles
from orchestrator.adapters.costs.predict_run import predict_plan
from orchestrator.core.costs.job_prediction import JobPrediction, PredictedFigure
from orchestrator.core.model.inventory import GpuSpec
from orchestrator.core.verdict.deviation import compare_prediction, findings
from orchestrator.core.verdict.result import MetricResult
from orchestrator.view.tables.plan_text import plan_lines
from tests.costs.planned import cost_files, planned

MODEL = "model=Qwen/Qwen2-7B-Instruct"
OFFLINE = (MODEL, "dtype=bf16", "ignore_eos=true", "prompt_words=190", "max_new_tokens=128")
LOAD = (MODEL, "output_tokens=128", "prompt_words=64")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> CostFiles:
    return cost_files(tmp_path_factory.mktemp("costs"))


def predicted(
    files: CostFiles, workload: str, *given: str, gpu: str = "H200", gpus: int = 1
) -> JobPrediction:
    request, plan = planned(files, *given, gpu=gpu, gpus=gpus, workload=workload)
    found = predict_plan(files, request, plan, {})
    assert found is not None
    return found


def figures(
    files: CostFiles, workload: str, *given: str, gpus: int = 1
) -> dict[str, PredictedFigure]:
    found = predicted(files, workload, *given, gpus=gpus)
    assert not found.without
    assert all(each.low <= each.value <= each.high for each in found.figures.values())
    return dict(found.figures)


def test_answers_of_batches_are_predicted_as_they_were_measured(files: CostFiles) -> None:
    """128 prompts of 128 tokens at once, answers of 128: 14,073 tok/s on one H200
    (docs/benchmarks.md); engines on other GPUs add theirs.
    """
    one = figures(files, "mlperf", *OFFLINE, "batch=128")
    four = figures(files, "mlperf", *OFFLINE, "batch=128", gpus=4)

    rate = one["generated_tokens_per_s"]
    assert rate.low < 14_073 < rate.high
    assert four["generated_tokens_per_s"].value == pytest.approx(4 * rate.value)
    assert four["peak_memory_bytes"] == one["peak_memory_bytes"]
    assert one["peak_memory_bytes"].low > 128 * 4224 * 2 * 28 * 512 * 2  # keys and values alone


def test_a_longer_context_takes_more_memory_and_no_more_time(files: CostFiles) -> None:
    short, long = (
        figures(files, "mlperf", *OFFLINE, "batch=32", f"context={n}") for n in (512, 8192)
    )

    assert long["peak_memory_bytes"].value > short["peak_memory_bytes"].value
    assert long["generated_tokens_per_s"] == short["generated_tokens_per_s"]


@pytest.mark.parametrize(
    "shape, rate, seconds, tokens_per_s, watts",
    [
        ("qwen2-7b", 10, (0.0189, 0.00560), 1232.8, 486),
        ("qwen2-7b", 10, (0.0183, 0.00552), 1228.7, 467),
        ("qwen2-7b", 25, (0.0298, 0.01065), 3020.1, 458),
        ("llama-3.1-8b", 20, (0.0302, 0.01108), 2404.4, 452),
        ("llama-3.1-8b", 40, (0.0352, 0.01637), 4611.1, 583),
        ("llama-3.1-8b", 40, (0.0316, 0.01456), 4606.4, 550),
    ],
)
def test_requests_that_come_one_by_one_are_predicted_as_they_were_measured(
    files: CostFiles,
    *,
    shape: str,
    rate: float,
    seconds: tuple[float, float],
    tokens_per_s: float,
    watts: float,
) -> None:
    """For 15 s on H200s (docs/benchmarks.md): prompts come between the tokens of others.
    ``seconds``: until the first token, and of each token after it, medians. Hosts differ.
    """
    given = ("output_tokens=128", "prompt_words=64", "duration=15")
    found = figures(files, "loadtest", f"shape={shape}", f"rate={rate}", *given)

    measured = dict(zip(("ttft_p50", "tpot_p50"), seconds, strict=True))
    measured |= {"output_tokens_per_s": tokens_per_s, "watts": watts}
    for name, value in measured.items():
        assert found[name].low < value < found[name].high
    assert found["output_tokens_per_s"].value == pytest.approx(tokens_per_s, rel=0.03)
    assert found["watts"].value == pytest.approx(watts, rel=0.10)


def test_as_many_at_once_as_an_engine_takes(files: CostFiles) -> None:
    """256 streams over HTTP on one H200: 15,177 tok/s, 0.454 s and 12.8 ms a token, 669 W
    (docs/benchmarks.md); what a server can answer at most is the same.
    """
    closed = ("arrival=concurrency", "concurrency=256")
    found = figures(files, "loadtest", "shape=qwen2-7b", *LOAD[1:], *closed)
    server = figures(files, "serve", "shape=qwen2-7b")

    measured = {"output_tokens_per_s": 15_177, "ttft_p50": 0.454, "tpot_p50": 0.0128, "watts": 669}
    for name, value in measured.items():
        assert found[name].low < value < found[name].high
    assert server["capacity_tokens_per_s"] == found["output_tokens_per_s"]


@pytest.mark.parametrize(
    "given, gpus, measured",
    [
        (("preset=40b", "new_tokens=16"), 1, (7375, 132, 76.8, None)),
        (("preset=40b", "new_tokens=16"), 2, (12_905, 67.4, 39.6, None)),
        (("preset=7b",), 1, (40_502, 225.9, 17.27, 268.4)),
    ],
)
def test_a_forward_pass_is_predicted_as_it_was_measured(
    files: CostFiles, given: tuple[str, ...], gpus: int, measured: tuple[float | None, ...]
) -> None:
    """Input and output tokens/s, GiB and watts on H200s (docs/benchmarks.md); how fast transformers
    decodes is the host's.
    """
    found = figures(files, "large", *given, gpus=gpus)

    names = ("prefill_tokens_per_s", "decode_tokens_per_s", "peak_memory", "watts")
    for name, value in zip(names, measured, strict=True):
        if value is not None:
            assert found[name].low < value < found[name].high * 1.01, name
    assert found["prefill_tokens_per_s"].value == pytest.approx(measured[0], rel=0.06)
    assert found["peak_memory"].value == pytest.approx(measured[2], rel=0.03)
    assert found["peak_memory"].unit == "GiB"


def test_models_of_their_own_are_added_up(files: CostFiles) -> None:
    one, four = (figures(files, "large", "preset=7b", gpus=gpus) for gpus in (1, 4))

    for name in ("prefill_tokens_per_s", "decode_tokens_per_s"):
        assert four[name].value == pytest.approx(4 * one[name].value)
    assert four["peak_memory"] == one["peak_memory"]


@settings(max_examples=20, deadline=None)
@given(rate=st.floats(0.5, 60.0), factor=st.floats(1.0, 2.0), gpus=st.sampled_from([1, 2, 8]))
def test_more_load_is_never_faster(files: CostFiles, rate: float, factor: float, gpus: int) -> None:
    """Neither for who waits for a token; and no more tokens come than are asked for."""
    less, more = (
        figures(files, "loadtest", *LOAD, f"rate={each * gpus}", gpus=gpus)
        for each in (rate, rate * factor)
    )

    for name in ("ttft_p50", "tpot_p50"):
        assert more[name].high >= less[name].high * (1 - 1e-9)
    assert more["output_tokens_per_s"].high == pytest.approx(rate * factor * gpus * 128)
    assert less["output_tokens_per_s"].low <= rate * gpus * 128


def test_a_first_token_takes_as_long_as_its_prompt_alone_at_least(files: CostFiles) -> None:
    alone = figures(files, "loadtest", *LOAD, "arrival=concurrency", "concurrency=1")
    many = figures(files, "loadtest", *LOAD, "arrival=concurrency", "concurrency=64")
    shared = figures(files, "loadtest", *LOAD, "arrival=concurrency", "concurrency=256", gpus=4)

    assert many["ttft_p50"].low == alone["ttft_p50"].low
    assert many["ttft_p50"].high > 4 * alone["ttft_p50"].high
    assert shared["ttft_p50"] == many["ttft_p50"]  # 64 streams on each engine
    rates = [each["output_tokens_per_s"].value for each in (many, shared)]
    assert rates[1] == pytest.approx(4 * rates[0])


def test_a_shape_is_predicted_as_the_model_of_that_size(files: CostFiles) -> None:
    named = figures(files, "loadtest", *LOAD, "rate=20")
    shaped = figures(files, "loadtest", "shape=qwen2-7b", *LOAD[1:], "rate=20")

    assert shaped == named


def test_each_batch_of_power_is_predicted(files: CostFiles) -> None:
    """On one H200: 253 tok/s at batch 1, 3,232 at 16, 14,971 at 128 (docs/benchmarks.md)."""
    given = ("preset=qwen2-7b", "batches=1, 16,128")
    found = figures(files, "power", *given, gpus=4)

    measured = {1: 253.3, 16: 3232, 128: 14_971}
    assert found.keys() == {
        f"{name}.bf16.batch{rows}" for name in ("output_tokens_per_s", "watts") for rows in measured
    }
    for rows, rate in measured.items():
        each = found[f"output_tokens_per_s.bf16.batch{rows}"]
        assert each.low < rate < each.high


def test_a_server_has_a_capacity_that_its_memory_and_its_engines_give(files: CostFiles) -> None:
    """What an engine keeps for keys and values is most of what the weights leave."""
    one = figures(files, "serve", "shape=llama-3.1-8b")
    four = figures(files, "serve", "shape=llama-3.1-8b", gpus=4)

    assert four["capacity_tokens_per_s"].value == pytest.approx(
        4 * one["capacity_tokens_per_s"].value
    )
    cache, memory = one["kv_cache_bytes"].value, one["peak_memory_bytes"]
    assert 0.7 * (141e9 - 16.1e9) < cache < 0.8 * (141e9 - 16.1e9)
    assert cache + 16.06e9 < memory.high < 141e9 * 1.2


@pytest.mark.parametrize(
    "workload, given, gpu, why",
    [
        ("mlperf", (), "H200", "included model"),
        ("mlperf", (MODEL, "ignore_eos=true"), "H200", "dtype=bf16"),
        ("mlperf", (MODEL, "dtype=bf16"), "H200", "ignore_eos=true"),
        ("loadtest", (*LOAD, "engine=vllm"), "H200", "engine=builtin"),
        ("loadtest", (*LOAD, "endpoint=http://h:1/v1"), "H200", "endpoint"),
        ("loadtest", (*LOAD, "arrival=sweep"), "H200", "arrival"),
        ("loadtest", (*LOAD, "rate=5000"), "H200", "asked 5,000 requests/s, and answers at most"),
        ("loadtest", (*LOAD, "engines=2"), "H200", "2 engines share 1 GPUs"),
        ("loadtest", (*LOAD, "prompt_words=5000"), "H200", "prompt tokens 10000: measured were"),
        ("mlperf", (*OFFLINE, "model=meta-llama/Llama-3.3-70B"), "A30", "A30 has 24 GB"),
        ("mlperf", (*OFFLINE, "batch=256", "context=8192"), "H100", "answers 256 at once takes"),
        ("loadtest", LOAD, "Voodoo2", "Voodoo2"),
        ("loadtest", ("shape=tiny",), "H200", "included model"),
        ("power", ("shape=llama-3.1-8b",), "H200", "precisions=bf16"),
        ("serve", (MODEL, "engine=vllm"), "H200", "engine=builtin"),
        ("large", ("preset=tiny", "precision=bf16"), "H200", "included model"),
        ("large", ("preset=7b", "precision=fp8"), "H200", "precision=bf16"),
        ("large", ("preset=7b", "compile=true"), "H200", "compile"),
        ("large", ("preset=7b", "tp=3"), "H200", "3 ranks share a model"),
        ("large", ("preset=40b",), "A30", "set a smaller shape"),
        ("serve", ("model=meta-llama/Llama-3.3-70B",), "A30", "A30 has 24 GB"),
    ],
)
def test_what_is_not_known_is_said(
    files: CostFiles, workload: str, given: tuple[str, ...], gpu: str, why: str
) -> None:
    found = predicted(files, workload, *given, gpu=gpu)

    assert found.figures == {}
    assert why in found.without
    _, plan = planned(files, *given, gpu=gpu, workload=workload)
    assert any("nothing: " in line and why in line for line in plan_lines(plan, None, (), found))


def test_what_was_measured_stands_beside_it(files: CostFiles) -> None:
    """Queues within the bounds are no finding; a rate that was missed is one."""
    request, plan = planned(files, *LOAD, "rate=20", gpu="H200", gpus=1, workload="loadtest")
    found = predict_plan(files, request, plan, {})
    assert found is not None
    first, rate = found.figures["ttft_p50"], found.figures["output_tokens_per_s"]
    values = {"ttft_p50": first.value * 2, "output_tokens_per_s": rate.value / 2}
    metrics = {name: MetricResult(value=value, unit="") for name, value in values.items()}
    compared = {each.name: each for each in compare_prediction(found, metrics)}

    assert compared["ttft_p50"].inside is True
    assert compared["output_tokens_per_s"].inside is False
    assert compared["watts"].measured is None
    (line,) = findings(tuple(compared.values()))
    assert "output_tokens_per_s: " in line
    assert "50 % below" in line


def test_without_a_gpu_nothing_is_read(tmp_path: Path) -> None:
    files = cost_files(tmp_path)
    request, plan = planned(files, gpu="", gpus=0, workload="loadtest")
    found = predict_plan(files, request, plan, {})

    assert request.cluster.nodes[0].gpus == GpuSpec(count=0, type="")
    assert found is not None
    assert "no GPU is used" in found.without
    assert not files.layout.cost_tables.exists()
