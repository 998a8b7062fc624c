"""The workload moe: routers are counted exactly, and what it leaves can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from moe.expert_latency import expert_latencies, expert_modules
from moe.measuring import telemetry_cost
from moe.router_telemetry import RouterTelemetry, count_layers, routed_layers
from orchestrate_models.loading import ModelOptions, load_model
from orchestrate_models.ranks import Ranks
from orchestrate_models.shapes import DENSE, MIXTURES
from orchestrate_models.weights import skeleton
from tests.workloads.conftest import WORKLOADS, bundled_workload, node_folder, succeed

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
ALONE = Ranks(rank=0, size=1, local_size=1, device=torch.device("cpu"), control=None)


def test_counts_are_those_of_the_router_and_add_up() -> None:
    """Beside what the library itself records of its routers in the same pass."""
    config = MIXTURES["tiny-moe"]
    model = load_model(ModelOptions(config=config, precision="fp32"), ALONE)
    layers = routed_layers(model)
    telemetry = RouterTelemetry(layers, config.num_experts)
    prompts = torch.arange(24).reshape(2, 12)
    with torch.inference_mode():
        with telemetry.watching():
            answer = model(input_ids=prompts, output_router_logits=True)
        telemetry.end_window(0.25)
        model(input_ids=prompts)  # not watched: not counted
    ((at, counts),) = telemetry.windows()
    assert at == 0.25
    assert [layer.name for layer in layers] == [
        "model.layers.0.mlp.gate",
        "model.layers.1.mlp.gate",
    ]
    for logits, layer in zip(answer.router_logits, counts, strict=True):
        chosen = logits.topk(config.num_experts_per_tok, dim=-1).indices
        assert layer == torch.bincount(chosen.flatten(), minlength=config.num_experts).tolist()
        assert sum(layer) == prompts.numel() * config.num_experts_per_tok


def test_layers_are_counted_apart() -> None:
    """All experts of all layers, the last one too, over two passes."""
    first, second = torch.tensor([[0, 1], [0, 3]]), torch.tensor([[3, 3], [2, 3]])
    counts = count_layers([first, second, first, second], layers=2, experts=4)
    assert counts.tolist() == [[4, 2, 0, 2], [0, 0, 2, 6]]


def test_an_expert_alone_computes_what_it_does_in_the_layer() -> None:
    """The same weights by hand; and only experts that got tokens are asked, until time is up."""
    config = MIXTURES["tiny-moe"]
    model = load_model(ModelOptions(config=config, precision="fp32"), ALONE)
    modules = expert_modules(model, routed_layers(model))
    assert len(modules) == 2
    first, rows = modules[0], torch.randn(5, config.hidden_size)
    asked = []
    with torch.inference_mode():
        chosen = torch.full((5, 1), 2)
        alone = first(rows, chosen, torch.ones(5, 1))
        gate, up = (rows @ first.gate_up_proj[2].T).chunk(2, dim=-1)
        assert torch.allclose(alone, (first.act_fn(gate) * up) @ first.down_proj[2].T, atol=1e-5)
    first.register_forward_pre_hook(
        lambda _, given: asked.append((set(given[1].flatten().tolist()), len(given[0])))
    )
    counts = [[3, 0, 5] + [0] * (config.num_experts - 3), [1] * config.num_experts]
    hidden = config.hidden_size

    found = expert_latencies(modules, counts, hidden_size=hidden, budget_s=60)

    assert [value is None for value in found[0]] == [count == 0 for count in counts[0]]
    assert all(value is not None and 0 < value < 60 for value in found[1])
    assert set(map(str, asked)) == {str(({0}, 3)), str(({2}, 5))}
    late = expert_latencies(modules, counts, hidden_size=hidden, budget_s=0)
    assert late == [[None] * config.num_experts] * 2


def test_a_model_without_routers_is_refused() -> None:
    with pytest.raises(ValueError, match="LlamaForCausalLM has no routers"):
        routed_layers(skeleton(DENSE["tiny"]))


def test_the_cost_is_the_ratio_of_pairs_without_disturbed_ones() -> None:
    plain = [1.0] * 18 + [9.0, 1.0]
    watched = [1.01] * 18 + [1.0, 9.0]
    cost = telemetry_cost(plain, watched)
    assert (cost.mean, cost.error) == (pytest.approx(0.01), pytest.approx(0.0, abs=1e-9))
    with pytest.raises(ValueError, match="two pairs"):
        telemetry_cost([1.0], [1.0])


def test_the_script_leaves_figures_telemetry_and_a_report(tmp_path: Path) -> None:
    node = node_folder(tmp_path / "node")
    succeed(node.fork(str(WORKLOADS / "moe" / "run.py"), "--device=cpu", "--pairs=2"))
    telemetry = json.loads((node.path / "output" / "router_telemetry.json").read_text())
    tokens = 2 * 2 * 64
    assert telemetry["tokens"] == tokens
    assert [sum(layer["counts"]) for layer in telemetry["layers"]] == [tokens * 2] * 2
    assert [len(window["layers"]) for window in telemetry["windows"]] == [2, 2]
    metrics = node.metrics()
    assert metrics["wrong_counts"] == 0
    for layer in telemetry["layers"]:
        assert [v is None for v in layer["latency_s"]] == [not n for n in layer["counts"]]
    slowest = max(v for layer in telemetry["layers"] for v in layer["latency_s"] if v)
    assert metrics["expert_latency_max"] == pytest.approx(slowest, abs=1e-6)
    assert 0 < metrics["expert_latency_p50"] <= metrics["expert_latency_max"]
    assert metrics["gini"] == pytest.approx(max(layer["gini"] for layer in telemetry["layers"]))
    assert metrics.keys() <= bundled_workload("moe").metrics.keys()
    sections = json.loads((node.path / "output" / "report_sections.json").read_text())["sections"]
    assert [section["kind"] for section in sections] == ["lines", "bars"]
