"""The formulas beside figures that others published, or that docs/benchmarks.md has: with what is
assumed of coefficients alone, so that nothing here was fitted to them.
"""

from __future__ import annotations

import pytest

from orchestrator.core.costs.collective_seconds import all_reduce_s, all_to_all_s
from orchestrator.core.costs.eager.eager_prediction import predict_eager
from orchestrator.core.costs.eager.eager_step import EagerJob
from orchestrator.core.costs.inference_prediction import predict_inference
from orchestrator.core.costs.inference_step import InferenceJob, roofline_s
from orchestrator.core.costs.predict import predict_training
from orchestrator.core.costs.training_step import TrainingJob, attention_flops, product_flops
from tests.core.costs.machines import assumed_model, fabric, shape, tables

GIB = 2**30


@pytest.mark.parametrize(
    "gpu, gpus, size, busbw, within",
    [
        ("h200", 4, 16 * GIB, 363, 0.02),  # stas00/ml-engineering
        ("h200", 6, 16 * GIB, 436, 0.05),
        ("h200", 8, 16 * GIB, 473, 0.02),
        ("a100", 8, 8 * GIB, 235.05, 0.01),  # SuperBench, 1,939 nodes
        ("b200", 8, 16 * GIB, 842, 0.02),
    ],
)
def test_all_reduce_in_a_node(gpu: str, gpus: int, size: int, busbw: float, within: float) -> None:
    """Bus bandwidth in GB/s, as nccl-tests count it."""
    seconds = all_reduce_s(size, gpus, fabric(gpu))
    assert size / seconds * 2 * (gpus - 1) / gpus / 1e9 == pytest.approx(busbw, rel=within)


@pytest.mark.parametrize("gpu, busbw, within", [("b200", 377.4, 0.08), ("h100", 332, 0.08)])
def test_all_reduce_between_nodes(gpu: str, busbw: float, within: float) -> None:
    """4 GiB on 4 nodes of 8 GPUs with a 400 Gb/s adapter each: 22.05 ms on B200, 83 % of the
    adapters' rate on H100 (stas00/ml-engineering).
    """
    seconds = all_reduce_s(4 * GIB, 32, fabric(gpu, network_gbit=400))
    assert 4 * GIB / seconds * 2 * 31 / 32 / 1e9 == pytest.approx(busbw, rel=within)


@pytest.mark.parametrize(
    "gpu, gpus, rates",
    [("h100", 16, (90, 81)), ("h100", 32, (61, 61)), ("b200", 8, (726, 740))],
)
def test_all_to_all(gpu: str, gpus: int, rates: tuple[float, float]) -> None:
    """GB/s of a GPU in dispatch and combine of 8 K tokens, hidden 7168, top-8, a 400 Gb/s adapter
    for each GPU (DeepEP's README): within 10 %.
    """
    size = 8192 * 7168 * 8
    seconds = all_to_all_s(size, gpus, fabric(gpu, network_gbit=400 if gpus > 8 else 0))
    for rate in rates:
        assert size / seconds / 1e9 == pytest.approx(rate, rel=0.10)


@pytest.mark.parametrize(
    "tensor, prefill, decode, gib", [(1, 7375, 132, 76.8), (2, 12_905, 67.4, 39.6)]
)
def test_forward_passes_of_a_large_model(
    tensor: int, prefill: float, decode: float, gib: float
) -> None:
    """A dense 40B model by transformers on 1 and 2 H200, 4 x 2,048 in, 16 out (docs/benchmarks.md):
    tokens/s of prompts within 10 %, of a step in the interval, memory within 5 %.
    """
    job = EagerJob(shape=shape("gpt-40b"), rows=4, prompt=2048, answer=16, tensor=tensor)
    found = predict_eager(job, fabric("h200"), assumed_model("h200")).figures
    assert found["prefill_tokens_per_s"].value == pytest.approx(prefill, rel=0.10)
    assert found["decode_tokens_per_s"].low < decode < found["decode_tokens_per_s"].high
    assert found["peak_memory_bytes"].value / GIB == pytest.approx(gib, rel=0.05)


def test_sizes_of_qwen2_7b() -> None:
    """7,615,616,512 parameters with biases; 161,480,704 of an adapter of rank 64 (config.json)."""
    qwen = shape("qwen2-7b")
    assert qwen.parameters == pytest.approx(7_615_616_512, rel=1e-4)
    assert qwen.adapter_values(64) == 161_480_704
    assert qwen.matrices == 7_070_285_824
    assert 2 * qwen.cache_values() == 57_344  # bytes a token in bf16


def test_flops_of_a_token() -> None:
    """28.3 GFLOP of frozen weights, 2.5 to 4.9 of attention at 4096 tokens, both ways."""
    job = TrainingJob(shape=shape("qwen2-7b"), rows=1, sequence=4096)
    frozen = product_flops(job) - 6 * job.tokens * job.trained
    assert frozen / job.tokens == pytest.approx(28.3e9, rel=0.01)
    assert 2.4e9 < attention_flops(job) / job.tokens < 5e9


@pytest.mark.parametrize(
    "gpu, rows, accumulation, rate",
    [
        ("h200", 4, 2, 17_708),  # docs/benchmarks.md
        ("h100", 2, 4, 17_174),
        ("h100", 4, 2, 17_581),
    ],
)
def test_lora_step(gpu: str, rows: int, accumulation: int, rate: float) -> None:
    """Tokens/s of one GPU on Qwen2-7B, sequence 4096: within 10 %, and in the interval."""
    job = TrainingJob(shape=shape("qwen2-7b"), rows=rows, sequence=4096, accumulation=accumulation)
    found = predict_training(job, fabric(gpu), assumed_model(gpu)).figures["tokens_per_s"]
    assert found.value == pytest.approx(rate, rel=0.10)
    assert found.low < rate < found.high


@pytest.mark.parametrize("rows, gib", [(4, 66.2), (2, 43.8e9 / GIB)])
def test_lora_memory(rows: int, gib: float) -> None:
    """Peak of one GPU (docs/benchmarks.md: 66.2 GiB, 43.8 GB): within 5 %."""
    job = TrainingJob(shape=shape("qwen2-7b"), rows=rows, sequence=4096)
    found = predict_training(job, fabric("h200"), assumed_model("h200"))
    assert found.figures["peak_memory_bytes"].value / GIB == pytest.approx(gib, rel=0.05)


@pytest.mark.parametrize("gpu, bound", [("a100", 141), ("h100", 237), ("h200", 339)])
def test_decode_bound_of_one_sequence(gpu: str, bound: float) -> None:
    """Tokens/s if nothing but the weights of Qwen2-7B were read, 14.14 GB: within 3 %."""
    job = InferenceJob(shape=shape("qwen2-7b"), rows=1, prompt=1, answer=1)
    assert 1 / roofline_s(job, tables().gpus[gpu].device) == pytest.approx(bound, rel=0.03)


@pytest.mark.parametrize("rows, rate", [(8, 1540), (32, 5383), (128, 14_073), (512, 18_522)])
def test_offline_inference(rows: int, rate: float) -> None:
    """Output tokens/s of the built-in engine on an H200 (docs/benchmarks.md): in the interval."""
    job = InferenceJob(shape=shape("qwen2-7b"), rows=rows, prompt=128, answer=128)
    found = predict_inference(job, fabric("h200"), assumed_model("h200")).figures["tokens_per_s"]
    assert found.low < rate < found.high
    assert found.value == pytest.approx(rate, rel=0.1)


def test_prompts_of_512_requests() -> None:
    """All are computed after 1.69 s (docs/benchmarks.md): within 10 %."""
    job = InferenceJob(shape=shape("qwen2-7b"), rows=512, prompt=128, answer=128)
    found = predict_inference(job, fabric("h200"), assumed_model("h200")).figures["prompts_done_s"]
    assert found.value == pytest.approx(1.69, rel=0.10)
