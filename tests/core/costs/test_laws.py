"""What holds whatever the numbers are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.costs.collective_seconds import all_reduce_s, all_to_all_s, ring_all_reduce_s
from orchestrator.core.costs.eager.eager_prediction import predict_eager
from orchestrator.core.costs.eager.eager_step import EagerJob
from orchestrator.core.costs.estimate import SHARPNESS, Family, Term, WorkPlace, estimate, weigh
from orchestrator.core.costs.expert_imbalance import (
    Routing,
    expected_experts,
    expert_loads,
    imbalance,
    shared_out,
)
from orchestrator.core.costs.hardware import FabricHardware, LinkHardware
from orchestrator.core.costs.inference_prediction import predict_inference
from orchestrator.core.costs.inference_step import InferenceJob
from orchestrator.core.costs.predict import OutOfCoverage, predict_training
from orchestrator.core.costs.training_step import TrainingJob
from tests.core.costs.machines import assumed_model, fabric, shape

SIZES = st.floats(1.0, 1e11)
FACTORS = st.floats(1.0, 100.0)
GPUS = st.integers(1, 64)
JOBS = st.builds(
    TrainingJob,
    shape=st.sampled_from([shape(name) for name in ("qwen2-7b", "qwen2-0.5b", "llama-3.1-8b")]),
    rows=st.integers(1, 16),
    sequence=st.sampled_from([128, 1024, 4096, 8192]),
    accumulation=st.integers(1, 8),
    gpus=st.integers(1, 8),
    rank=st.sampled_from([0, 8, 64]),
    text=st.sampled_from([0, 100, 5000]),
    targets=st.floats(0.01, 1.0),
)
REQUESTS = st.builds(
    InferenceJob,
    shape=st.sampled_from([shape("qwen2-7b"), shape("qwen2-0.5b")]),
    rows=st.integers(1, 512),
    prompt=st.integers(1, 8192),
    answer=st.integers(1, 1024),
    tensor=st.just(1), expert=st.just(1), replicas=st.just(1), routing=st.just(Routing(0, 0)),
)  # fmt: skip


PASSES = st.builds(
    EagerJob,
    shape=st.sampled_from([shape("qwen2-7b"), shape("llama-2-13b")]),
    rows=st.integers(1, 64),
    prompt=st.integers(1, 4096),
    answer=st.integers(2, 128),
    tensor=st.sampled_from([1, 2, 4]),
    expert=st.just(1), replicas=st.just(1), routing=st.just(Routing(0, 0)),
)  # fmt: skip


def links(bytes_s: float, hop_s: float) -> FabricHardware:
    inside = LinkHardware(name="l", bytes_s=bytes_s, start_s=1e-5, hop_s=hop_s)
    return FabricHardware(per_node=8, inside=inside, between=inside._replace(bytes_s=bytes_s / 10))


@given(size=SIZES, gpus=GPUS, rate=st.floats(1e9, 1e12), faster=FACTORS)
def test_more_bandwidth_is_never_slower(size: float, gpus: int, rate: float, faster: float) -> None:
    """Neither is less latency."""
    before, after = links(rate, 1e-5), links(rate * faster, 1e-5 / faster)
    for collective in (all_reduce_s, all_to_all_s):
        assert collective(size, gpus, after) <= collective(size, gpus, before) * (1 + 1e-12)


@given(size=SIZES, gpus=st.integers(2, 64))
def test_a_ring_moves_what_it_must(size: float, gpus: int) -> None:
    """Each rank sends 2 (n - 1) / n of its bytes; no all-reduce takes less on such links."""
    link = LinkHardware(name="l", bytes_s=1e9, start_s=0.0, hop_s=0.0)
    seconds = ring_all_reduce_s(size, gpus, link)
    assert seconds == pytest.approx(2 * (gpus - 1) / gpus * size / 1e9)
    assert all_reduce_s(size, 1, FabricHardware(per_node=8, inside=link)) == 0.0


@given(job=JOBS, faster=FACTORS)
def test_a_better_gpu_is_never_slower(job: TrainingJob, faster: float) -> None:
    model = assumed_model("h100")
    device = model.device
    better = device._replace(
        flops={"bf16": device.flops["bf16"] * faster},
        memory_bytes_s=device.memory_bytes_s * faster,
    )
    slow, fast = (
        predict_training(job, fabric("h100"), model._replace(device=each)).figures["step_time_p50"]
        for each in (device, better)
    )
    assert fast.value <= slow.value * (1 + 1e-9)


@given(job=JOBS)
def test_work_costs_more_the_more_there_is(job: TrainingJob) -> None:
    """Twice the accumulation takes longer, but not more than twice as long; memory stays."""
    model = assumed_model("h200")
    once, twice = (
        predict_training(each, fabric("h200"), model).figures
        for each in (job, job._replace(accumulation=2 * job.accumulation))
    )
    assert once["step_time_p50"].value < twice["step_time_p50"].value
    assert twice["step_time_p50"].value <= 2 * once["step_time_p50"].value
    assert once["peak_memory_bytes"] == twice["peak_memory_bytes"]


@given(job=JOBS)
def test_gpus_speed_up_at_most_by_their_number(job: TrainingJob) -> None:
    """Tokens/s of n GPUs are at most n times those of one."""
    model = assumed_model("h200")
    one = predict_training(job._replace(gpus=1), fabric("h200"), model).figures["tokens_per_s"]
    all_of = predict_training(job, fabric("h200"), model).figures["tokens_per_s"]
    assert all_of.value <= job.gpus * one.value * (1 + 1e-9)


@given(job=JOBS, more=st.floats(1.0, 10.0))
def test_shorter_texts_and_fewer_targets_are_never_slower(job: TrainingJob, more: float) -> None:
    """Nor do they take more memory."""
    model = assumed_model("h200")
    longer = job._replace(
        text=round((job.text or job.sequence) * more), targets=min(1.0, job.targets * more)
    )
    one, other = (predict_training(each, fabric("h200"), model).figures for each in (job, longer))
    for name in ("step_time_p50", "peak_memory_bytes"):
        assert one[name].value <= other[name].value * (1 + 1e-9)


@given(job=PASSES, more=st.integers(2, 4))
def test_forward_passes_cost_more_the_more_there_is(job: EagerJob, more: int) -> None:
    """Of rows and of tokens; models of their own add up; intervals hold their values."""
    model = assumed_model("h200")
    found = predict_eager(job, fabric("h200"), model)
    for name, each in found.figures.items():
        assert 0 < each.low <= each.value <= each.high < math.inf, name
    assert found.figures.keys() <= found.units.keys()
    for change in ({"rows": job.rows * more}, {"prompt": job.prompt * more}):
        other = predict_eager(job._replace(**change), fabric("h200"), model).figures
        for name in ("prompts_done_s", "decode_step_s", "peak_memory_bytes"):
            assert found.figures[name].value <= other[name].value
    copies = predict_eager(job._replace(replicas=more), fabric("h200"), model).figures
    rate = found.figures["tokens_per_s"].value
    assert copies["tokens_per_s"].value == pytest.approx(more * rate)


@given(job=REQUESTS)
def test_intervals_hold_their_value(job: InferenceJob) -> None:
    found = predict_inference(job, fabric("h200"), assumed_model("h200"))
    for name, each in found.figures.items():
        assert 0 < each.low <= each.value <= each.high < math.inf, name
    assert found.figures.keys() <= found.units.keys()


@given(
    device=st.floats(1e-6, 10), host=st.floats(1e-6, 10), after=st.floats(0, 10),
    log=st.floats(-2, 2), step=st.just(1e-5),
)  # fmt: skip
def test_slopes_are_those_of_the_figure(
    device: float, host: float, after: float, log: float, step: float
) -> None:
    """Against differences; the slower of device and host counts, a little more where both do."""
    names = ("d", "h", "a")
    terms = (Term("d", device), Term("h", host, WorkPlace.HOST), Term("a", after, WorkPlace.AFTER))
    logs = (log, -log, 0.3)
    found = weigh(names, logs, terms)
    for place in range(3):
        moved = tuple(each + step * (index == place) for index, each in enumerate(logs))
        slope = (math.log(weigh(names, moved, terms).value) - math.log(found.value)) / step
        assert found.slopes[place] == pytest.approx(slope, abs=1e-3)
    parts = device * math.exp(log), host * math.exp(-log)
    slower = found.value - after * math.exp(0.3)
    assert max(parts) * (1 - 1e-9) <= slower <= max(parts) * 2 ** (1 / SHARPNESS) * (1 + 1e-9)


@given(value=st.floats(1.0, 1e4))
def test_a_capped_figure_stays_below_its_cap(value: float) -> None:
    family = Family(names=("w",), logs=(0.0,), covariance=((0.01,),), spread=0.05)
    found = estimate(family, (Term("w", value),), 700.0)
    assert found.value <= min(value, 700.0)
    assert found.value >= 0.85 * min(value, 700.0)
    assert found.high <= 700.0 * 1.03


ROUTINGS = st.builds(
    Routing,
    experts=st.sampled_from([8, 64, 128]),
    active=st.integers(1, 8),
    skew=st.floats(0.0, 1.5),
    seed=st.integers(0, 1000),
    draws=st.just(4),
)


@given(routing=ROUTINGS, tokens=st.integers(1, 500), ranks=st.integers(1, 10))
def test_the_most_loaded_rank_has_at_least_the_mean(
    routing: Routing, tokens: int, ranks: int
) -> None:
    """Draws repeat; an expert gets at most every token; one rank has all of the load."""
    found = imbalance(routing, tokens, ranks)
    assert 1.0 - 1e-9 <= found.load <= ranks + 1e-9
    assert found.experts <= max(shared_out(routing.experts, ranks))
    assert list(expert_loads(routing, tokens)) == list(expert_loads(routing, tokens))
    assert all(0 <= load <= tokens for load in expert_loads(routing, tokens))
    assert imbalance(routing, tokens, 1).load == pytest.approx(1.0)


def test_drawn_loads_have_the_expected_mean() -> None:
    """1000 tokens with 4 of 64 experts: 62.5 each; popular experts get more, and it shows."""
    even = Routing(experts=64, active=4, seed=3)
    loads = [load for number in range(50) for load in expert_loads(even, 1000, number)]
    assert sum(loads) / len(loads) == pytest.approx(62.5, rel=0.02)
    skewed = even._replace(skew=1.0)
    assert imbalance(skewed, 1000, 8).load > 1.3 * imbalance(even, 1000, 8).load


@given(tokens=st.integers(0, 1000))
def test_experts_that_are_used(tokens: int) -> None:
    """None by no token, 8 by one, never more than there are; more tokens never use fewer."""
    found = expected_experts(128, 8, tokens)
    assert found <= 128
    assert expected_experts(128, 8, tokens + 1) >= found
    assert expected_experts(128, 8, 1) == pytest.approx(8)


def test_beyond_what_was_measured_nothing_is_predicted() -> None:
    """And the message says in what."""
    coverage = {"training": {"sequence length": (1024.0, 8192.0)}}
    model = assumed_model("h200")._replace(coverage=coverage)
    job = TrainingJob(shape=shape("qwen2-7b"), rows=1, sequence=16_384)
    assert predict_training(job, fabric("h200"), model).figures
    with pytest.raises(OutOfCoverage, match=r"sequence length 32768: measured were 1024 to 8192"):
        predict_training(job._replace(sequence=32_768), fabric("h200"), model)
