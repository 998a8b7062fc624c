"""The power workload: a decoder that is one, rows that were measured, a table without gaps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from power.decoder import SHAPES, Cache, Decoder, Generation, read_shape
from power.measuring import Row, measure_rows
from power.parameters import Parameters, batches_of, precisions_of
from power.table import markdown_document
from tests.time_limits import communicate
from tests.workloads.conftest import WORKLOADS
from tests.workloads.declared import declared

CPU = torch.device("cpu")
TINY = SHAPES["tiny"]
pytestmark = pytest.mark.slow


def reference(decoder: Decoder) -> LlamaForCausalLM:
    """transformers' Llama with the decoder's weights."""
    shape = decoder.shape
    config = LlamaConfig(
        hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers, num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads, vocab_size=shape.vocab_size,
        rms_norm_eps=shape.rms_norm_eps, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    weights = {"model.embed_tokens.weight": decoder.table, "lm_head.weight": decoder.head}
    heads = shape.num_attention_heads, shape.num_key_value_heads, shape.num_key_value_heads
    for index, layer in enumerate(decoder.layers):
        at = f"model.layers.{index}"
        rows = layer["qkv"].split([count * shape.head_size for count in heads])
        gate, up = layer["gate_up"].chunk(2)
        named = zip(("q", "k", "v"), rows, strict=True)
        weights |= {f"{at}.self_attn.{name}_proj.weight": matrix for name, matrix in named}
        weights |= {
            f"{at}.self_attn.o_proj.weight": layer["out"], f"{at}.mlp.gate_proj.weight": gate,
            f"{at}.mlp.up_proj.weight": up, f"{at}.mlp.down_proj.weight": layer["down"],
        }  # fmt: skip
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all("norm" in name for name in missing)
    return model


@torch.inference_mode()
def test_it_answers_as_the_llama_of_transformers_does() -> None:
    """Greedy tokens of a batch, prefilled and then decoded from the cache."""
    decoder = Decoder(replace(TINY, hidden_size=64), CPU, torch.float32)
    for layer in decoder.layers:  # large enough for answers to differ
        layer["qkv"].mul_(8)
        layer["down"].mul_(8)
    prompts = torch.randint(TINY.vocab_size, (3, 7), generator=torch.manual_seed(5))
    wanted = reference(decoder).generate(
        prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=9,
        eos_token_id=None, pad_token_id=0,
    )[:, 7:]  # fmt: skip
    cache = Cache(decoder, 3, 16)
    found = [decoder.forward(prompts, torch.arange(7), cache)]
    for position in range(7, 15):
        found.append(decoder.forward(found[-1], torch.tensor([position]), cache))
    assert torch.equal(torch.cat(found, 1), wanted)
    assert len(set(wanted.flatten().tolist())) > 5, "answers that could be wrong"


def test_every_round_does_the_same_work() -> None:
    generation = Generation(Decoder(TINY, CPU, torch.float32), 2, 5, 6)
    first = generation.round().clone()
    assert torch.equal(generation.round(), first)


def test_sizes_are_read_from_a_models_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    LlamaConfig(
        hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=512, rms_norm_eps=1e-6,
    ).to_json_file(path)  # fmt: skip
    assert read_shape(path) == TINY
    assert SHAPES["qwen2-7b"].parameters == pytest.approx(7.615e9, rel=1e-3)
    for text, why in (
        ("{", "not JSON"),
        ('{"hidden_size": 8}', "no config of a Llama"),
        (path.read_text().replace('"hidden_size": 64', '"hidden_size": 66'), "evenly"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=why):
            read_shape(path)


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
    text = markdown_document(parameters, TINY, "NVIDIA H200", rows)
    assert "| bf16 | 8 | 100 | 400 | 0.25 | 4 | 10 |" in text
    assert "| bf16 | 16 | 200 | not measured | not measured | not measured | 5 |" in text
    assert "| bf16 | 999 | not measured |" in text
    assert "- bf16, batch 16: no counter" in text
    assert "did not fit" in text


def test_the_script_writes_its_table_and_refuses_mistakes(tmp_path: Path) -> None:
    def start(*options: str) -> tuple[int, str]:
        process = subprocess.Popen(
            [sys.executable, str(WORKLOADS / "power" / "run.py"), "--seconds=0.05", *options],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        out, _ = communicate(process, 120)
        return process.returncode, out

    code, out = start("--device=cpu", "--batches=2", "--precisions=fp32")
    assert code == 0, out
    table = (tmp_path / "output" / "power_efficiency_baselines.md").read_text()
    assert re.search(r"^\| fp32 \| 2 \| [0-9.e+]+ \| not measured \|", table, re.MULTILINE)
    (tmp_path / "config.json").write_text(json.dumps({}))
    code, out = start("--config=config.json")
    assert (code, "no config of a Llama" in out) == (2, True)
    code, out = start("--batches=two")
    assert (code, "--batches two" in out) == (2, True)
