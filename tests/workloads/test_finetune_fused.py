"""The fused engine does what transformers, peft and autograd do, with less memory and passes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

import orchestrate_kit as kit
from finetune.base.settings import Settings
from finetune.base.world import World
from finetune.data.conversations import Example
from finetune.data.packing import IGNORED, Row, collate, text_example
from finetune.fused import reference
from finetune.fused.attention import documents
from finetune.fused.engine import FusedEngine
from finetune.fused.fp8 import FusedProjectionFp8
from finetune.fused.fused_projection import Part
from finetune.fused.head import Head, chunk_rows, linear_cross_entropy
from finetune.fused.layer import Recompute
from finetune.fused.memory import Cost, choose, cost_of
from finetune.fused.model import FusedModel, NotFused
from finetune.model.lora import Trainable
from finetune.model.training_engines import PlainEngine
from finetune.training.trainer import Trainer
from tests.workloads.conftest import WORKLOADS, node_folder, succeed
from tests.workloads.declared import declared

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
VOCABULARY = 90
SUM_OF_TWO = Path(__file__).parent / "programs" / "sum_of_two.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of the libraries, about one another
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    random.seed(1)
    yield
    torch.set_num_threads(before)


def small(family: str = "qwen2", **changes: Any) -> Any:
    """A peft model of three layers, whose adapter matters."""
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "tie_word_embeddings": False,
    }
    kinds: dict[str, Callable[[], Any]] = {
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**(sizes | changes))),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**(sizes | changes))),
    }
    base = kinds[family]()
    for name, parameter in base.named_parameters():
        if "norm" in name or name.endswith("bias"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return with_adapter(base)


def with_adapter(base: Any, **changes: Any) -> Any:
    options = {"r": 4, "lora_alpha": 12, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    model = get_peft_model(base, LoraConfig(**(options | changes)))
    for parameter in trained(model):
        torch.nn.init.normal_(parameter, std=0.1)
        parameter.grad = torch.zeros_like(parameter)
    return model


def trained(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def example(prompt: int, answer: int) -> Example:
    words = [random.randrange(VOCABULARY) for _ in range(prompt + answer)]
    return text_example(words[:prompt], words[prompt:])


def rows() -> list[Row]:
    """Several documents in a row, and rows of several lengths."""
    return [(example(5, 7), example(3, 1)), (example(2, 9),), (example(6, 4), example(1, 8))]


def plain(model: Any) -> PlainEngine:
    return PlainEngine(
        Trainable(model=model, tokenizer=None, world=ALONE, settings=declared(Settings))
    )


def gradients(model: Any) -> list[torch.Tensor]:
    """A copy of them, after which they are zero again."""
    found = []
    for parameter in trained(model):
        assert parameter.grad is not None
        found.append(parameter.grad.clone())
        parameter.grad.zero_()
    return found


@pytest.mark.parametrize(
    "family,changes",
    [
        ("qwen2", {}),
        ("qwen2", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 12}),
    ],
    ids=["grouped", "tied", "biased"],
)
def test_losses_and_gradients_are_those_of_autograd(family: str, changes: dict[str, Any]) -> None:
    """Of every adapter matrix, whatever is recomputed; the model itself is as it was."""
    model, batch = small(family, **changes), rows()
    wanted = plain(model).accumulate(collate(batch, pad=0), 0.25)
    of_autograd = gradients(model)
    fused = FusedModel(model)
    laid = fused.lay(collate(batch, pad=0, one_row=True))

    for recompute in Recompute:
        loss = fused.accumulate(laid, 0.25, recompute)
        torch.testing.assert_close(0.25 * loss, wanted, rtol=1e-5, atol=0)
        for got, own in zip(gradients(model), of_autograd, strict=True):
            assert own.abs().max() > 1e-4
            torch.testing.assert_close(got, own, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(fused.loss(laid), loss, rtol=1e-6, atol=0)
    again = plain(model).loss(collate(batch, pad=0))
    torch.testing.assert_close(again, 4 * wanted, rtol=1e-6, atol=0)


def test_fifty_steps_have_the_loss_curve_of_the_plain_engine(tmp_path: Path) -> None:
    """And the adapter that is saved loads in stock peft, and merges."""
    settings = {"steps": 50, "global_batch": 3, "micro_batch": 2, "learning_rate": 0.005}
    data, curves = rows() * 50, []
    for engine in ("plain", "fused"):
        torch.manual_seed(3)
        model = small()
        chosen = declared(Settings, engine=engine, **settings)
        tokenizer = type("Padding", (), {"pad_token_id": 0})
        trainable = Trainable(model=model, tokenizer=tokenizer, world=ALONE, settings=chosen)
        trainer = Trainer(trainable, data)
        curves.append([trainer.step(step).loss for step in range(1, 51)])
    assert curves[1] == pytest.approx(curves[0], rel=2e-4)
    assert curves[0][-1] < 0.97 * curves[0][0]

    model.save_pretrained(tmp_path)
    torch.manual_seed(3)
    stock = PeftModel.from_pretrained(small().unload(), str(tmp_path))
    batch = collate(rows(), pad=0)
    merged = stock.merge_and_unload()
    torch.testing.assert_close(
        plain(merged).loss(batch), plain(model).loss(batch), rtol=1e-4, atol=0
    )


def eight_bits(**changes: Any) -> tuple[Any, FusedModel]:
    model = small(hidden_size=32, intermediate_size=48, **changes)
    return model, FusedModel(model, fp8=True)


def test_eight_bits_cost_a_few_percent_of_a_gradient() -> None:
    """A product of rounded operands is off by the rounding of e4m3, 2^-4 at most for each value,
    which averages out over a sum.
    """
    model, fused = eight_bits()
    batch = rows()
    wanted = plain(model).accumulate(collate(batch, pad=0), 0.25)
    exact = torch.cat([gradient.flatten() for gradient in gradients(model)])
    laid = fused.lay(collate(batch, pad=0, one_row=True))
    loss = fused.accumulate(laid, 0.25) * 0.25
    rounded = torch.cat([gradient.flatten() for gradient in gradients(model)])
    torch.testing.assert_close(loss, wanted, rtol=0.02, atol=0)
    assert float(loss) != float(wanted)
    alike = torch.nn.functional.cosine_similarity(rounded, exact, dim=0)
    assert 0.95 < alike < 1 - 1e-6


def test_eight_bits_take_their_scales_by_row_and_by_column() -> None:
    """An outlier in one channel costs the others nothing."""
    _, fused = eight_bits(num_hidden_layers=1)
    (layer,) = fused.layers
    x = torch.randn(6, 32)
    weight = layer.o.storage[:32, :32].clone()
    weight[3] *= 1e4
    layer.o.storage[:32, :32] = weight
    (part,) = layer.o.weights
    again = FusedProjectionFp8(
        reference, [Part(part, None, layer.o.a[0], layer.o.b[0], layer.o.scale)]
    )
    out = torch.empty(6, 32)
    again.forward(x, out)
    wanted = x @ weight.t() + again.scale * (x @ again.a[0].t()) @ again.b[0].t()
    error = (out - wanted).norm(dim=0) / wanted.norm(dim=0)
    assert error.max() < 0.1


def test_nothing_is_held_twice() -> None:
    """The model's matrices are views of the joined storages."""
    model = small()
    fused = FusedModel(model)
    block = model.get_base_model().model.layers[0]
    storage = fused.layers[0].qkv.storage
    for name in ("q_proj", "k_proj", "v_proj"):
        weight = getattr(block.self_attn, name).get_base_layer().weight
        assert weight.untyped_storage().data_ptr() == storage.untyped_storage().data_ptr()


def test_changed_adapters_count_once_they_are_refreshed() -> None:
    model, batch = small(), rows()
    fused = FusedModel(model)
    laid = fused.lay(collate(batch, pad=0, one_row=True))
    before = fused.loss(laid)
    with torch.no_grad():
        for parameter in trained(model):
            parameter.mul_(3)
    assert torch.equal(fused.loss(laid), before)
    fused.refresh()
    wanted = plain(model).loss(collate(batch, pad=0)).detach()
    torch.testing.assert_close(fused.loss(laid), wanted, rtol=1e-5, atol=0)
    assert not torch.isclose(wanted, before)


@pytest.mark.parametrize(
    "change,reason",
    [
        ({"lora_dropout": 0.1}, "dropout"),
        ({"use_dora": True}, "DoRA"),
        ({"target_modules": ["q_proj"]}, "0 LoRA adapters"),
    ],
    ids=["dropout", "dora", "partial"],
)
def test_what_it_would_compute_otherwise_is_refused(change: dict[str, Any], reason: str) -> None:
    model = with_adapter(small().unload(), **change)
    with pytest.raises(NotFused, match=reason):
        FusedModel(model)


def test_a_model_of_another_kind_is_refused_with_what_is_known() -> None:
    model = small()
    model.get_base_model().config.model_type = "mamba"
    with pytest.raises(NotFused, match=r"mamba \(known: llama, mistral, qwen2\).*--engine plain"):
        FusedModel(model)


def test_options_that_do_not_go_together_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    fused = "--engine=fused"
    wrong = [[fused, "--lora-dropout=0.1"], [fused, "--gradient-checkpointing"]]
    wrong.append(["--engine=plain", "--fp8"])
    for options in wrong:
        with pytest.raises(SystemExit):
            kit.parse(Settings, options)
        assert "--engine" in capsys.readouterr().err


def test_logits_exist_a_chunk_at_a_time() -> None:
    """Loss and gradient are those of all at once."""
    hidden, weight = torch.randn(300, 16), torch.randn(VOCABULARY, 16)
    labels = torch.randint(VOCABULARY, (300,))
    exact = hidden.clone().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(exact @ weight.t(), labels, reduction="sum")
    (0.5 * wanted).backward()
    seen = []

    class Watched:
        @staticmethod
        def cross_entropy_(logits: torch.Tensor, *rest: Any, **options: bool) -> torch.Tensor:
            seen.append(len(logits))
            return reference.cross_entropy_(logits, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetune.fused.head.CHUNK_BYTES", 128 * VOCABULARY * 4)
        patch.setattr("finetune.fused.head.chunk_rows.__defaults__", (128 * VOCABULARY * 4,))
        loss = linear_cross_entropy(Watched, hidden, Head(weight), labels, 0.5, grad=True)  # type: ignore[arg-type]
    assert seen == [128, 128, 44]
    torch.testing.assert_close(loss, wanted.detach())
    torch.testing.assert_close(hidden, exact.grad)


@given(st.integers(1, 10**6), st.sampled_from([2, 4]), st.integers(1, 1 << 34))
def test_a_chunk_fits_unless_a_single_token_does_not(
    vocabulary: int, itemsize: int, limit: int
) -> None:
    rows = chunk_rows(vocabulary, itemsize, limit)
    assert rows == 1 or rows * vocabulary * itemsize <= limit
    assert rows <= 128 or rows % 128 == 0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_documents_are_found_by_their_positions(lengths: list[int]) -> None:
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    found = documents(positions)
    assert list(found.lengths) == lengths
    assert found.starts.tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]


@given(st.integers(1, 100_000), st.integers(0, 10**12))
def test_no_more_is_recomputed_than_memory_asks_for(tokens: int, room: int) -> None:
    kept = {Recompute.NONE: 1000, Recompute.MLP: 300, Recompute.LAYER: 50}
    cost = Cost(kept=kept, working=100)
    choice = choose(cost, tokens, room)
    fits = [mode for mode in Recompute if tokens * (kept[mode] + 100) <= 0.92 * room]
    assert choice.recompute is (fits[0] if fits else Recompute.LAYER)


def test_the_estimate_of_what_is_kept_is_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from the tensors themselves, for each way to recompute."""
    fused = FusedModel(small(num_hidden_layers=1))
    (layer,) = fused.layers
    laid = fused.lay(collate(rows(), pad=0, one_row=True))
    hidden = torch.randn(len(laid.ids), 32)
    cost = cost_of(fused.layers, 4)
    for mode in Recompute:
        with torch.no_grad():
            _, _, kept = layer.forward(hidden.clone(), laid.tokens, mode)
        tensors = [
            kept.first.total,
            kept.gate_up,
            kept.h_qkv,
            kept.h_o,
            kept.h_gate_up,
            kept.h_down,
        ]
        if kept.second is not None:
            tensors.append(kept.second.total)
        if kept.attended is not None:
            tensors += [kept.attended.out, *kept.attended._inputs.all]
        held = sum(tensor.numel() for tensor in tensors if tensor is not None) * 4
        assert held == len(hidden) * cost.kept[mode]


def test_gradients_are_summed_beside_the_backward_pass(tmp_path: Path) -> None:
    """In buckets of four values; two ranks, of which one had no micro-batch, end with one sum."""
    node = node_folder(tmp_path / "node")
    argv = str(tmp_path / "store"), str(WORKLOADS)
    ranks = [node.fork(str(SUM_OF_TWO), str(rank), *argv) for rank in range(2)]
    said = [succeed(rank).strip() for rank in ranks]
    total = [100.0 + value for value in range(11)]
    assert said == [f"[False, True, True, True] {total}", f"[] {total}"]


def test_the_engine_says_what_it_recomputes() -> None:
    settings = declared(Settings, engine="fused", recompute="mlp")
    engine = FusedEngine(small(), settings, ALONE)
    engine.fit(4)
    assert (engine.choice.recompute, engine.choice.reason) == (Recompute.MLP, "asked for")
    engine = FusedEngine(small(), declared(Settings, engine="fused"), ALONE)
    engine.fit(4)
    assert engine.description == "fused passes, computed again: none (no GPU memory to save)"


def test_a_place_without_a_target_is_an_error() -> None:
    batch = collate(rows(), pad=0, one_row=True)
    batch.labels[0, batch.predicting[0]] = IGNORED
    with pytest.raises(ValueError, match="predicts nothing"):
        FusedModel(small()).lay(batch)
