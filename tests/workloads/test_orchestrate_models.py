"""Models for measurements: the same weights however they are divided, fp8, what fits."""

from __future__ import annotations

import math

import pytest
import torch

from orchestrate_models.fp8 import use_fp8
from orchestrate_models.loading import ModelOptions, checked_tensor_parallel, load_model
from orchestrate_models.memory_fit import (
    DoesNotFit,
    MemoryNeed,
    inference_need,
    parameter_count,
    require_fit,
)
from orchestrate_models.ranks import Ranks
from orchestrate_models.repeats import spread
from orchestrate_models.shapes import DENSE, MIXTURES, model_config
from orchestrate_models.weights import random_slices
from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.cli.load_request import assume_plan
from orchestrator.core.model.request import RunRequest
from orchestrator.parsing.inputs.workloads.jobs import make_job
from tests.architecture.source import ROOT

CPU = torch.device("cpu")
ALONE = Ranks(rank=0, size=1, local_size=1, device=CPU, control=None)
TINY = DENSE["tiny"]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize(
    "shape, billions",
    [("qwen2-7b", 7.62), ("llama-3.1-8b", 8.03), ("llama-2-13b", 13.02), ("gpt-40b", 39.5)],
)
def test_named_models_have_their_size(shape: str, billions: float) -> None:
    assert parameter_count(DENSE[shape]) / 1e9 == pytest.approx(billions, rel=2e-3)


@pytest.mark.parametrize("shape, billions", [("olmoe-7b", 6.92), ("qwen3-30b-a3b", 30.53)])
def test_named_mixtures_have_their_size(shape: str, billions: float) -> None:
    assert parameter_count(MIXTURES[shape]) / 1e9 == pytest.approx(billions, rel=2e-3)


def test_a_part_of_a_weight_is_the_part_of_the_whole() -> None:
    """Whatever a rank cuts out, and however often it asks."""
    one = random_slices(TINY, torch.float32, CPU, 3)["model.layers.1.mlp.up_proj.weight"]
    whole = one[...]
    assert one.get_shape() == list(whole.shape)
    assert torch.equal(one[slice(128, 256), slice(0, 64)], whole[128:256])
    part = one[slice(0, 1), slice(0, 64)]
    assert part.untyped_storage().nbytes() == part.nbytes


def test_weights_depend_on_name_and_seed_alone() -> None:
    first, again = (random_slices(TINY, torch.float32, CPU, seed) for seed in (0, 0))
    other = random_slices(TINY, torch.float32, CPU, 1)
    up, gate = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.gate_proj.weight"
    assert torch.equal(first[up][...], again[up][...])
    assert not torch.equal(first[up][...], other[up][...])
    assert not torch.equal(first[up][...], first[gate][...])
    assert first["model.norm.weight"][...].eq(1).all()


def test_smooth_weights_add_little_in_each_layer() -> None:
    plain, smooth = (
        random_slices(TINY, torch.float32, CPU, 0, smooth=smooth) for smooth in (False, True)
    )
    down, embedding = "model.layers.0.mlp.down_proj.weight", "model.embed_tokens.weight"
    ratio = smooth[down][...].std() / plain[down][...].std()
    assert ratio.item() == pytest.approx(1 / math.sqrt(2 * TINY.num_hidden_layers))
    assert smooth[embedding][...].std().item() == pytest.approx(1, rel=0.05)


def test_a_wider_model_has_the_weights_of_the_narrow_one() -> None:
    narrow, wide = (
        load_model(ModelOptions(config=TINY, precision=p, weights_in="bf16"), ALONE)
        for p in ("bf16", "fp32")
    )
    for one, other in zip(narrow.parameters(), wide.parameters(), strict=True):
        assert torch.equal(one.float(), other)


def test_fp8_is_as_close_as_its_rounding() -> None:
    """e4m3 has three bits behind the leading one: products err by a few per cent."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 128, dtype=torch.bfloat16)
    model = torch.nn.Sequential(layer)
    inputs = torch.randn(2, 5, 64, dtype=torch.bfloat16)
    with torch.no_grad():
        exact = model(inputs)
        assert use_fp8(model) == 1
        found = model(inputs)
    assert (found.shape, found.dtype) == (exact.shape, exact.dtype)
    error = ((found - exact).norm() / exact.norm()).item()
    assert 1e-3 < error < 0.06


def test_what_does_not_fit_is_refused_with_the_sum() -> None:
    need = MemoryNeed(parts={"weights": 2**52, "cache": 2**40})
    with pytest.raises(
        DoesNotFit, match=r"weights 4.19e\+06 \+ cache 1.02e\+03 = 4.2e\+06 GiB, and"
    ):
        require_fit(need, CPU, 1)
    require_fit(MemoryNeed(parts={"weights": 1}), CPU, 2)


def test_the_need_of_memory_is_the_arithmetic_of_the_shape() -> None:
    need = inference_need(
        DENSE["gpt-40b"], torch.bfloat16, tensor_parallel=4, batch=4, tokens=2112, logits=1
    )
    assert need.parts["weights"] == parameter_count(DENSE["gpt-40b"]) * 2 // 4
    assert need.parts["cache"] == 2 * 54 * 8 * 128 * 4 * 2112 * 2 // 4


@pytest.mark.parametrize(
    "wanted, ranks, why", [(2, 4, "1, where each rank"), (0, 3, "does not divide"), (4, 1, "ranks")]
)
def test_a_division_that_is_not_possible_is_refused(wanted: int, ranks: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        checked_tensor_parallel(wanted, ranks, TINY)


@pytest.mark.parametrize("name", ["tp_check", "large"])
def test_the_smallest_model_can_be_divided_over_the_ranks_of_the_embedded_cluster(
    name: str,
) -> None:
    """Two machines without a GPU, as `--cluster local` has."""
    catalog = Catalog.from_environment({"ORCHESTRATE_HOME": "/nonexistent"}, project=ROOT)
    job = make_job(catalog.workload(name), ())
    plan = assume_plan(RunRequest(run_id="r", cluster=catalog.cluster("local"), job=job))

    assert checked_tensor_parallel(0, plan.world_size, TINY) == plan.world_size == 2


def test_a_folder_that_is_no_model_is_refused_in_one_line(tmp_path: object) -> None:
    with pytest.raises(ValueError, match=r"--model .*: ") as caught:
        model_config("tiny", str(tmp_path))
    assert "\n" not in str(caught.value)


def test_the_spread_of_repeats() -> None:
    found = spread([2.0, 4.0, 3.0])
    assert (found.low, found.median, found.high, found.count) == (2, 3, 4, 3)
    assert found.relative == pytest.approx(1 / 3)
    assert spread([5.0]).relative == 0
    with pytest.raises(ValueError, match="nothing"):
        spread([])
