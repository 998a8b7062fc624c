"""Frozen weights that several ranks hold together: real ranks, and what follows from numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from tiny_base_lib.recipe import Recipe, make
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM

import orchestrate_kit as kit
from finetune.base.settings import Settings
from finetune.base.world import World
from finetune.fused.fused_projection import Part, shape_of
from finetune.fused.layer import Form, Recompute
from finetune.fused.memory import ROOMS, Extent, Held, Outline, Placement, cost_of, held_by, place
from finetune.fused.model import FusedModel, NotFused, outline
from finetune.fused.sharded import Layout, nodes_of
from finetune.model.lora import prepare
from tests.workloads.conftest import (
    DEADLINE_S,
    FINETUNE,
    QUICK,
    WORKLOADS,
    free_port,
    node_folder,
    start_ranks,
    succeed,
)

RANKS = Path(__file__).parent / "programs" / "sharded_ranks.py"
SHORT_OF_MEMORY = Path(__file__).parent / "programs" / "short_of_memory.py"
SCRIPT = FINETUNE / "train.py"
LAYERS = 5
Trained = dict[tuple[int, int], list[tuple[dict[str, Any], dict[str, Any]]]]
ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2 * DEADLINE_S),
    pytest.mark.filterwarnings("default"),  # of the libraries, about one another
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of so many layers that most are not there at one time."""
    folder = tmp_path_factory.mktemp("five-layers")
    make(folder, Recipe(layers=LAYERS, steps=1), stored=torch.float32)
    return folder


def _options(base: Path, *more: str) -> list[str]:
    return [
        "--engine=fused",
        f"--model={base}",
        "--steps=2",
        "--max-grad-norm=1e9",
        "--lora-rank=8",
        "--train-conversations=10",
        "--eval-conversations=3",
        "--generate-batch=1",
        *more,
    ]


def _outlined(base: Path, rank: int = 8) -> Held:
    sizes = outline(AutoConfig.from_pretrained(base))
    return held_by(sizes, rank, row_tokens=256, itemsize=4)


CASES = [
    ("--global-batch=8", "--micro-batch=1", "--recompute=none"),  # two passes or more on all ranks
    ("--global-batch=5", "--micro-batch=1", "--recompute=mlp"),  # one pass more on the first
    ("--global-batch=1", "--micro-batch=2", "--recompute=layer"),  # none on all but the first
]


WORLDS = [(1, 2), (1, 4), (2, 2)]  # nodes, and ranks on each


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """What every world makes of every case with whole weights, and with shared ones: four ranks on
    two nodes, who take the places of all these worlds, for the start of a rank is what takes long.
    """
    root = tmp_path_factory.mktemp("trained")
    folders = [node_folder(root / f"node-{index}") for index in range(2)]
    asked = [
        {
            "nodes": nodes,
            "per_node": per_node,
            "port": free_port(),
            "lines": [_options(base, *c, f"--shard={s}") for s in ("off", "on") for c in CASES],
        }
        for nodes, per_node in WORLDS
    ]
    argv = str(WORKLOADS), str(root / "results"), json.dumps(asked)
    for run in start_ranks(folders, 2, RANKS, *argv):
        succeed(run)
    results = torch.load(root / "results")
    count = len(CASES)
    return {
        world: list(zip(found[:count], found[count:], strict=True))
        for world, found in zip(WORLDS, results, strict=True)
    }


@pytest.mark.parametrize("nodes,per_node", WORLDS)
def test_shared_weights_train_as_whole_ones_do(
    trained: Trained, base: Path, nodes: int, per_node: int
) -> None:
    """Losses, every gradient of the adapter and answers, with as many passes on each rank or not;
    and each rank holds its part of what the layers hold, and two layers.
    """
    for whole, shared in trained[nodes, per_node]:
        assert "weights over" not in whole["engine"]
        assert f"weights over {per_node} ranks (asked for)" in shared["engine"]
        assert len(whole["bytes"]) == nodes * per_node
        assert shared["before"] == pytest.approx(whole["before"], rel=1e-6)
        assert shared["answers"] == whole["answers"]
        assert len(whole["answers"]) == 3
        assert shared["after"] == pytest.approx(whole["after"], rel=1e-6)
        for (loss, gradient), (wanted, exact) in zip(shared["steps"], whole["steps"], strict=True):
            assert loss == pytest.approx(wanted, rel=1e-6)
            assert max(map(abs, exact)) > 1e-4
            assert_close(torch.tensor(gradient), torch.tensor(exact), rtol=1e-4, atol=1e-7)
        layer = _outlined(base).layer
        saved = LAYERS * layer * (1 - 1 / per_node) - ROOMS * layer
        for held, part in zip(whole["bytes"], shared["bytes"], strict=True):
            assert held - part == pytest.approx(saved, abs=0.02 * layer)


def test_a_run_with_shared_weights_gives_what_one_with_whole_ones_does(
    tmp_path: Path, base: Path
) -> None:
    """Losses, answers and an adapter that stock peft loads on a base of its own; also resumed
    from an earlier checkpoint by fewer ranks. Six prompts on four ranks are not as many on each.
    """
    options = [*_options(base, *QUICK), "--steps=4", "--global-batch=3", "--micro-batch=1"]
    options += ["--checkpoint-every=2"]
    whole, shared = node_folder(tmp_path / "whole"), node_folder(tmp_path / "shared")
    succeed(whole.fork(str(SCRIPT), *options, "--shard=off"))
    on = (*options, "--shard=on", "--recompute=layer")
    (run,) = start_ranks([shared], 4, SCRIPT, *on)
    assert "weights over 4 ranks" in succeed(run)
    losses = shared.losses()
    shutil.rmtree(shared.path / "checkpoints" / "step-00000004")
    (run,) = start_ranks([shared], 2, SCRIPT, *on)
    assert "resumed after step 2" in succeed(run)

    assert losses == pytest.approx(whole.losses(), rel=1e-5)
    assert shared.losses() == pytest.approx(losses, rel=1e-5)
    answers, wanted = (
        (node.path / "output" / "eval_samples.jsonl").read_text() for node in (shared, whole)
    )
    assert answers == wanted
    assert len(answers.splitlines()) == 6
    assert shared.metrics()["eval_loss"] == pytest.approx(whole.metrics()["eval_loss"], rel=1e-5)
    assert shared.metrics()["adapter_reload_max_logit_difference"] < 1e-5

    fresh = AutoModelForCausalLM.from_pretrained(base)
    stock = PeftModel.from_pretrained(fresh, str(shared.path / "output" / "adapter"))
    saved = load_file(whole.path / "output" / "adapter" / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(stock)
    assert loaded.keys() == saved.keys()
    for name, values in saved.items():
        assert_close(loaded[name], values, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    "options,reason",
    [
        (["--shard=on", "--engine=plain"], "needs --engine other than plain"),
        (["--shard=on", "--engine=fused", "--fp8"], "held whole"),
        (["--shard=on", "--engine=fused", "--oom=retry"], "same passes"),
    ],
    ids=["plain", "fp8", "retry"],
)
def test_what_shared_weights_cannot_do_is_a_usage_error(
    options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        kit.parse(Settings, options)
    assert reason in capsys.readouterr().err


def test_one_rank_has_nobody_to_share_with(base: Path) -> None:
    settings = kit.parse(Settings, _options(base, "--shard=on"))
    with pytest.raises(NotFused, match="one rank alone"):
        prepare(settings, ALONE)


SHAPES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=3)


@given(SHAPES, st.integers(1, 7), st.integers(1, 4))
def test_blocks_of_all_ranks_are_the_layer(
    sizes: list[tuple[int, int]], ranks: int, thin: int
) -> None:
    """Each storage has its frozen rows in place, and nothing where the adapter comes."""
    storages = []
    for outs, width in sizes:
        frozen = [torch.randn(out, width, dtype=torch.float64) for out in (outs, 2 * outs)]
        a, b = torch.nn.Parameter(torch.zeros(thin, width)), torch.nn.Parameter(torch.zeros(1))
        storages.append([Part(weight, None, a, b, 1.0) for weight in frozen])
    layout = Layout(tuple(shape_of(parts) for parts in storages), ranks)
    like = torch.empty(0)
    blocks = [layout.block_of(rank, storages, like) for rank in range(ranks)]

    assert {len(block) for block in blocks} == {layout.block}
    for parts, storage in zip(storages, layout.storages(torch.cat(blocks)), strict=True):
        wanted = torch.zeros_like(storage)
        rows = torch.cat([part.weight for part in parts])
        wanted[: len(rows), : rows.shape[1]] = rows
        assert torch.equal(storage, wanted)


@given(st.lists(st.integers(1, 8), min_size=1, max_size=5))
def test_nodes_are_told_apart_by_local_ranks(counts: list[int]) -> None:
    found = nodes_of([local for count in counts for local in range(count)])
    assert [len(node) for node in found] == counts
    assert [rank for node in found for rank in node] == list(range(sum(counts)))


def test_the_bytes_of_a_layer_are_those_of_its_storages(base: Path) -> None:
    """And what is whole on each rank is what is left of the model, and the adapter four times."""
    settings = kit.parse(Settings, _options(base, "--shard=off"))
    trainable = prepare(settings, ALONE)
    fused = FusedModel(trainable.model)
    held = _outlined(base, settings.lora_rank)
    storages = [sum(joined.storage.nbytes for joined in layer.joined) for layer in fused.layers]
    assert storages == [held.layer] * held.layers
    matrices = sum(w.nbytes for layer in fused.layers for j in layer.joined for w in j.weights)
    biases = [j.bias.nbytes for layer in fused.layers for j in layer.joined if j.bias is not None]
    trained = sum(parameter.nbytes for parameter in trainable.parameters)
    model = sum(parameter.nbytes for parameter in trainable.model.parameters())
    assert held.whole == model - matrices - sum(biases) - trained + 4 * trained
    cost = cost_of(fused.layers, 4)
    assert held.row == 256 * (cost.kept[Recompute.LAYER] + cost.working)


LLAMA_70B = Outline(
    form=Form(heads=64, kv_heads=8, depth=128, ffn=28672, eps=1e-5, scale=1.0),
    layers=80,
    hidden=8192,
    vocabulary=128256,
    tied=False,
)


def test_seventy_billion_parameters_fit_on_eight_devices() -> None:
    """In bf16, with an adapter of rank 64 and rows of 4096 tokens."""
    held = held_by(LLAMA_70B, 64, row_tokens=4096, itemsize=2)
    sizes = {Extent.NODE: 8, Extent.ALL: 16}
    found = place(held, 79 * 10**9, sizes, alone=True)
    reason = "163.9 GB on one rank, 45.5 GB on each of 8, of 79.0 GB that are free"
    assert found == Placement(Extent.NODE, reason)


@given(
    st.builds(Held, *[st.integers(1, 100)] + [st.integers(1, 10**10)] * 3),
    st.integers(1, 10**12),
    st.integers(1, 8),
    st.integers(1, 8),
    st.booleans(),
)
def test_no_more_ranks_share_than_memory_asks_for(
    held: Held, room: int, node: int, nodes: int, alone: bool
) -> None:
    sizes = {Extent.RANK: 1, Extent.NODE: node, Extent.ALL: node * nodes}
    found = place(held, room, sizes, alone=alone).extent
    smaller = [extent for extent in Extent if extent < found and (extent > Extent.RANK or alone)]
    too_small = [e for e in smaller if sizes[e] > 1 or e is Extent.RANK]
    usable = 0.92 * room
    assert all(held.on_one_of(sizes[extent]) > usable for extent in too_small)
    assert found is not Extent.RANK or (alone and held.on_one_of(1) <= usable)


def test_a_rank_that_alone_runs_out_of_memory_leaves_nobody_waiting(
    tmp_path: Path, base: Path
) -> None:
    """In the middle of a pass that it shares with others: all choose what fits there, or end."""
    folder = node_folder(tmp_path / "run")
    (run,) = start_ranks([folder], 2, SHORT_OF_MEMORY, str(WORKLOADS), str(base))
    lines = [line for line in succeed(run).splitlines() if line.startswith("rank ")]
    told = {rank: [line for line in lines if line.startswith(f"rank {rank}:")] for rank in range(2)}
    losses = {line.rpartition("; then ")[2] for line in lines}
    assert len(losses) == 1, "what failed changes nothing that follows"
    for said in told.values():
        assert [" 1 rows;" in line for line in said] == [True, True, False, False]
        assert all("the memory of rank 1" in line for line in said[2:])
