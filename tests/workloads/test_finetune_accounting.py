"""Figures that cannot flatter: arithmetic, waiting, energy and money."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

import orchestrate_kit as kit
from finetune.base.settings import Settings
from finetune.base.world import World
from finetune.training import accounting
from finetune.training.accounting import (
    Clock,
    Stopwatch,
    flop_per_token,
    peak_flops,
)
from finetune.training.recorder import (
    Recorder,
    arithmetic_figures,
    energy_figures,
    node_figures,
    timed_figures,
)
from finetune.training.trainer import StepRecord
from orchestrate_kit import _energy as kit_energy
from tests.workloads.declared import declared

CPU = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of the libraries, about one another
]


@pytest.mark.parametrize("tied", [False, True])
def test_a_token_takes_four_operations_a_frozen_weight_and_six_a_trained_one(tied: bool) -> None:
    """By hand, for one layer. The look-up of the input is none, unless its table is the output."""
    config = Qwen2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
    )
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(Qwen2ForCausalLM(config), lora)
    attention = 16 * 16 + 2 * 16 * 8 + 16 * 16
    frozen = attention + 3 * 16 * 24 + 50 * 16
    trained = 2 * (2 * (16 + 16) + 2 * (16 + 8) + 3 * (16 + 24))
    assert flop_per_token(model) == 4 * frozen + 6 * trained


def test_peaks_are_told_of_boards_that_are_known() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989.4e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("Some other board") is None
    model = torch.nn.Module()
    model.get_input_embeddings = model.get_output_embeddings = lambda: torch.nn.Embedding(2, 2)
    assert set(arithmetic_figures(model, CPU, 1000.0)) == {"flop_per_token"}


def record(seconds: float, **fields: float | None) -> StepRecord:
    return StepRecord(step=1, loss=1.0, learning_rate=1.0, tokens=100, seconds=seconds, **fields)  # type: ignore[arg-type]


def test_waiting_and_price_come_from_the_measured_steps() -> None:
    steps = [
        record(2.0, data_s=0.5, communication_s=1.0),
        record(3.0, data_s=0.0, communication_s=0.5),
    ]
    figures = timed_figures(steps, per_rank=40.0, gpu_hour_usd=3.6)
    assert {name: value for name, (value, _) in figures.items()} == pytest.approx(
        {
            "data_wait": 0.1,
            "communication_wait": 0.3,
            "usd_per_million_tokens": 25.0,
        }
    )
    assert set(timed_figures(steps, 40.0, 0.0)) == {"data_wait", "communication_wait"}


def test_power_is_that_of_a_gpu_and_tokens_those_of_its_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    gpus = [kit_energy.GpuEnergy(f"GPU-{index}", 2000.0, 2000.0, ()) for index in range(2)]
    energy = kit.NodeEnergy(gpus, 5.0, 900.0, [])
    assert energy_figures(energy, 40.0) == {
        "watts": (400.0, "W"),
        "tokens_per_joule": (0.1, "tok/J"),
    }
    assert energy_figures(None, 40.0) == {}, "of a rank that does not ask"
    doubtful = kit.NodeEnergy(gpus, 5.0, 900.0, ["the energy counter was reset"])
    assert energy_figures(doubtful, 40.0) == {}, "absent, and not wrong"


def test_nodes_are_compared_by_what_their_slowest_rank_takes_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Waiting for others is none of it: in a step, all ranks take as long as the slowest."""
    recorder = Recorder(declared(Settings), CPU)
    recorder.add_steps([record(2.0, communication_s=waited) for waited in (1.5, 0.5, 1.4)])
    own = recorder.own_step_s()
    assert own == pytest.approx(0.6)
    assert node_figures(CPU, "n1", own) == {}, "one node has none beside it"
    ranks = [("n1", 0.5), ("n1", own), ("n2", 0.9), ("n2", 0.7)]
    monkeypatch.setattr(World, "gather", lambda *_: ranks)
    assert node_figures(CPU, "n1", own) == {
        "own_step_s.n1": (own, "s"),
        "own_step_s.n2": (0.9, "s"),
    }


def test_steps_that_are_profiled_count_for_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(declared(Settings), CPU)
    recorder.first_measured = 1
    recorder.speaks = False
    for step in (1, 2, 3):
        monkeypatch.setattr(kit, "profiling", lambda step=step: step == 2)
        recorder.before_step(step)
        recorder.add_steps([replace(record(1.0), step=step)])
    recorder.window.end()
    assert recorder.measured == [1, 3]


def test_a_lap_has_what_was_waited_for_since_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(0.0, 1.0)
    monkeypatch.setattr(accounting.time, "monotonic", lambda: next(ticks))
    clock = Clock(CPU.device)
    for waited in (True, False, True):
        with clock.data(waited=waited):
            pass
    with clock.communication():
        pass
    lap = clock.lap()
    assert (lap.data_s, lap.communication_s) == (2.0, 1.0)
    assert clock.lap() == accounting.Lap()


def test_a_lap_is_without_its_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(accounting.time, "monotonic", lambda: now)
    watch = Stopwatch()
    now = 2.0
    assert watch.lap() == 2.0
    now = 3.0
    with watch.paused():
        now = 10.0
    now = 11.0
    assert watch.lap() == 2.0
