"""The trainers that are compared do the same work: rounded adapters with exact masters, compiled
layers, weights that two ranks hold together.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from bench_lib.finetuning.finetune import read_records, run_ranks
from bench_lib.finetuning.models import qwen2, qwen2_on_host
from bench_lib.finetuning.timeline import Kernel, gaps
from bench_lib.trainers.tuned import MasterAdamW
from bench_lib.trainers.with_unsloth import Made, put_folder
from bench_lib.trainers.work import trained

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("default"),  # of the libraries, about one another
]
CPU = torch.device("cpu")
SHORT = ["--length", "32", "--steps", "4", "--warmup", "1", "--rows", "2", "--lora-rank", "8"]


def test_masters_take_steps_that_rounded_values_could_not() -> None:
    """A thousand steps of 2e-4 of a bf16 value of 1 would each be lost."""
    exact = torch.nn.Parameter(torch.ones(5))
    rounded = torch.nn.Parameter(torch.ones(5, dtype=torch.bfloat16))
    optimiser = MasterAdamW([rounded], fused=False)
    plain = torch.optim.AdamW([exact], lr=2e-4, weight_decay=0.0)
    for group in optimiser.param_groups:
        group["lr"] = 2e-4
    for _ in range(100):
        exact.grad, rounded.grad = torch.ones(5), torch.ones(5, dtype=torch.bfloat16)
        plain.step()
        optimiser.step()
        optimiser.zero_grad()
    assert rounded.grad is None
    assert float(exact.detach()[0]) == pytest.approx(0.98, abs=1e-4)
    torch.testing.assert_close(rounded.float(), exact, rtol=2**-8, atol=0.0)


def test_the_tuned_script_learns_what_the_usual_one_does(tmp_path: Path) -> None:
    """Compiled and without checkpointing, on two ranks; the bound is measured after ours."""
    out = tmp_path / "figures.jsonl"
    options = [*SHORT, "--bound", "--sides", "usual", "tuned", "ours", "ours, fp8"]
    assert run_ranks(sys.executable, 2, options, out, 220) == 0
    records = read_records(out)
    losses = {record["name"]: record["losses"] for record in records if record["kind"] == "side"}
    assert list(losses) == ["usual", "tuned", "ours", "ours, fp8"]
    assert losses["tuned"] == pytest.approx(losses["usual"], rel=1e-5)
    assert losses["ours"] == pytest.approx(losses["usual"], rel=1e-5)
    assert losses["ours, fp8"] == pytest.approx(losses["usual"], rel=1e-2)
    bounds = [record for record in records if record["kind"] == "bound"]
    assert [record["name"] for record in bounds] == ["ours", "ours, fp8"]
    assert all(record["products_s"] > 0 and record["attention_s"] > 0 for record in bounds)


def test_weights_that_two_ranks_hold_together_are_trained_with(tmp_path: Path) -> None:
    out = tmp_path / "figures.jsonl"
    options = [*SHORT, "--shared", "--sides", "ours"]
    assert run_ranks(sys.executable, 2, options, out, 200) == 0
    (side,) = [record for record in read_records(out) if record["kind"] == "side"]
    assert "weights over 2 ranks" in side["engine"]
    assert len(set(side["losses"])) == 4


def test_others_do_not_share_their_weights(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [*SHORT, "--shared", "--sides", "usual"]
    assert run_ranks(sys.executable, 1, options, tmp_path / "none", 200) != 0
    assert "of ours alone" in capfd.readouterr().err


def test_layers_on_the_host_begin_alike_and_count_each() -> None:
    """As many parameters as of any model of this shape, in the memory of one layer."""
    model, usual = qwen2_on_host("tiny", CPU, rank=8), qwen2("tiny", CPU, rank=8)
    shapes = [{name: tuple(p.shape) for name, p in m.named_parameters()} for m in (model, usual)]
    assert shapes[0] == shapes[1]
    first, second, *_ = model.get_base_model().model.layers
    one, other = (layer.mlp.up_proj.get_base_layer().weight for layer in (first, second))
    assert one.data_ptr() == other.data_ptr()
    assert float(one.std()) > 0
    ids = torch.arange(12)[None]
    assert float(model(input_ids=ids, labels=ids).loss) == pytest.approx(6.24, abs=0.1)  # ln 512


def test_unsloth_gets_the_adapter_that_the_others_start_from(tmp_path: Path) -> None:
    model = qwen2("tiny", CPU, rank=8)
    start = [copy.deepcopy(p.detach()) for p in trained(model)]
    put_folder(model, start, 8, tmp_path / "folder")
    names = {path.name for path in (tmp_path / "folder").iterdir()}
    assert names == {"adapter-8.pt", "config.json", "tokenizer.json", "tokenizer_config.json"}
    for got, wanted in zip(torch.load(tmp_path / "folder" / "adapter-8.pt"), start, strict=True):
        assert torch.equal(got, wanted)


def test_gaps_lie_between_what_ran_before_and_after() -> None:
    kernels = [Kernel("a", 0, 5), Kernel("long", 1, 20), Kernel("c", 22, 23), Kernel("d", 30, 31)]
    assert gaps(kernels) == [(7, "c", "d"), (2, "long", "c")]
    assert gaps(kernels, most=1) == [(7, "c", "d")]
    assert gaps([]) == []


def test_unsloth_trains_on_the_padding_token_as_on_any_word() -> None:
    """It sets that token's embedding to zero when it has loaded a model."""
    made = Made("tiny", torch.device("cpu"))
    model = made.from_pretrained("folder", token=None)
    weight = model.get_input_embeddings().weight.detach()
    before = weight.clone()
    assert before[0].norm() > 0
    weight[0] = 0.0
    made.put_words_back(model)
    assert torch.equal(weight, before)
