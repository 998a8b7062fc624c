"""The workloads for evidence as scripts, small, and what they find where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_check_lib.evidence import gates_broken

import stress.run
from orchestrate_models.memory_fit import DoesNotFit
from orchestrate_models.ranks import Ranks
from stress.counters import Sample, predicted_bytes, summary
from stress.load import MAX_NAMED, Findings, Load, note_wrong, run_load
from stress.run import complain, figures_of
from stress.settings import Settings as StressSettings
from tests.workloads.conftest import (
    DEADLINE_S,
    WORKLOADS,
    NodeFolder,
    bundled_workload,
    finish,
    node_folder,
    start_ranks,
    succeed,
)
from tests.workloads.declared import declared
from tp_check.agreement import compare

CPU = torch.device("cpu")
ALONE = Ranks(rank=0, size=1, local_size=1, device=CPU, control=None)
TRAINED = str(WORKLOADS / "finetune" / "model" / "tiny")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of the libraries, about one another
    pytest.mark.timeout(DEADLINE_S),
]


def document_of(node: NodeFolder, name: str) -> Any:
    return json.loads((node.path / "output" / name).read_text())


def run_alone(tmp_path: Path, workload: str, *options: str) -> NodeFolder:
    """The script on one rank; only figures that the workload declares are reported."""
    node = node_folder(tmp_path / workload)
    succeed(node.fork(str(WORKLOADS / workload / "run.py"), "--device=cpu", *options))
    known = bundled_workload(workload).metrics.keys()
    assert {name.partition(".")[0] for name in node.metrics()} <= known
    return node


def run_two(tmp_path: Path, workload: str, *options: str) -> NodeFolder:
    node = node_folder(tmp_path / workload)
    (ranks,) = start_ranks([node], 2, WORKLOADS / workload / "run.py", "--device=cpu", *options)
    succeed(ranks)
    return node


@pytest.mark.processes
def test_large_measures_prefill_and_decode_of_a_divided_model(tmp_path: Path) -> None:
    node = run_two(tmp_path, "large", "--tp=0", "--repeats=2", "--precision=fp8")
    found = document_of(node, "large.json")
    assert len(found["repeats"]) == 2
    passes = found["repeats"][0]
    assert (passes["prefill_tokens"], passes["decode_tokens"]) == (2 * 32, 2 * 7)
    rates = sorted(passes["prefill_tokens"] / s for s in passes["prefill_seconds"])
    assert node.metrics()["prefill_tokens_per_s"] == pytest.approx(sum(rates) / 2)
    assert node.metrics()["decode_tokens_per_s"] > 0


@pytest.mark.processes
def test_a_profile_of_large_is_in_none_of_its_repeats(tmp_path: Path) -> None:
    """One window is open in all of them; the profile is taken behind it."""
    node = node_folder(tmp_path / "large")
    script = str(WORKLOADS / "large" / "run.py")
    wanted = {"ORCHESTRATE_PROFILE": "0.01@0"}
    succeed(node.start(script, "--device=cpu", "--repeats=2", **wanted))
    assert len(document_of(node, "large.json")["repeats"][0]["prefill_seconds"]) == 2
    profile = document_of(node, "captures/profile/rank-0.json")
    assert (profile["reason"], profile["steps"] >= 1) == ("", True)


@pytest.mark.processes
def test_what_cannot_fit_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    node = node_folder(tmp_path / "node")
    script = str(WORKLOADS / "large" / "run.py")
    process = node.fork(script, "--device=cpu", "--shape=gpt-40b", "--batch=4096")
    _, err = finish(process)
    assert process.returncode == 2
    assert "large: does not fit: weights 147 + cache " in err
    assert "nothing was loaded" in err


def test_operands_that_cannot_fit_are_refused() -> None:
    settings = declared(StressSettings, width=65536, message_mib=65536)
    why = r"matrices 64 \+ messages 192 = 256 GiB, and cpu has .*: set a smaller --width"
    with pytest.raises(DoesNotFit, match=why):
        stress.run.run(settings, ALONE)


@pytest.mark.processes
def test_a_divided_trained_model_agrees_with_the_whole_one(tmp_path: Path) -> None:
    node = run_two(tmp_path, "tp_check", f"--model={TRAINED}", "--precision=bf16")
    metrics = node.metrics()
    assert 0 < metrics["relative_error"] < 1.6e-2
    assert metrics["top1_wrong"] == 0
    assert metrics["error_ratio"] < 1.5
    assert metrics["kl"] < 0.01


def test_a_wrong_divided_model_is_found() -> None:
    """A shift that no rounding explains, beside one that rounding does."""
    torch.manual_seed(0)
    whole = torch.randn(40, 64)
    swapped = whole.clone()
    swapped[7] = whole[7].flip(0)
    agreement = compare(whole, swapped)
    assert agreement.relative_error > 0.1
    assert agreement.top1_agreement == 39 / 40
    assert agreement.kl > 0.01
    rounded = compare(whole, whole.bfloat16().float())
    assert rounded.relative_error < 4e-3
    assert rounded.top1_wrong == 0


def test_a_confident_choice_that_changes_is_wrong_and_a_tie_is_not() -> None:
    whole = torch.tensor([[9.0, 1.0, 0.0], [1.0, 0.999, 0.0]])
    other = torch.tensor([[9.0, 9.1, 0.0], [0.999, 1.0, 0.0]])
    assert compare(whole, other).top1_agreement == 0
    assert compare(whole, other).top1_wrong == 0  # 8.1 of error may well swap 8 of margin
    moved = torch.tensor([[0.0, 1.0, 9.0], [1.0, 0.999, 0.0]])
    assert compare(whole, moved).top1_wrong == 0
    with pytest.raises(ValueError, match="not finite"):
        compare(whole, torch.full_like(whole, torch.nan))


def test_quality_of_the_trained_base_is_beyond_chance_on_its_own_words(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    lines = [{"text": "The weather in Paris is fine today."}, {"text": "What time is it now?"}]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    node = run_alone(tmp_path, "quality", f"--model={TRAINED}", f"--dataset={data}")
    found = document_of(node, "quality.json")
    assert found["perplexity"]["low"] < found["perplexity"]["value"] < found["perplexity"]["high"]
    assert [line["line"] for line in found["lines"]] == [1, 2]
    assert node.metrics()["cut_lines"] == 0


@pytest.mark.processes
def test_two_ranks_score_every_line_as_one_does(tmp_path: Path) -> None:
    two = document_of(run_two(tmp_path / "two", "quality"), "quality.json")
    one = document_of(run_alone(tmp_path / "one", "quality"), "quality.json")
    assert two["lines"] == one["lines"]
    assert len(one["lines"]) == 20


@pytest.mark.parametrize("mode, phase", [("inference", "decode"), ("training", "optimizer")])
def test_memory_says_what_holds_it(mode: str, phase: str, tmp_path: Path) -> None:
    node = run_alone(tmp_path, "memory", f"--mode={mode}")
    found = document_of(node, "memory.json")
    assert phase in found["peaks"]
    assert found["holders"]["weights"] >= found["weights_bytes"]
    assert sum(found["holders"].values()) <= max(found["peaks"].values()) * 1.001
    assert ("optimizer" in found["holders"]) == (mode == "training")
    places = {point["place"] for point in found["points"]}
    assert {"model.layers.0", "model.layers.1", "lm_head"} <= places


@pytest.mark.processes
def test_stress_checks_products_and_sums_of_two_ranks(tmp_path: Path) -> None:
    node = run_two(tmp_path, "stress", "--seconds=0.2", "--width=64", "--window-s=0.05")
    found = document_of(node, "stress.json")
    assert [rank["wrong"] for rank in found["ranks"]] == [0, 0]
    assert node.metrics()["wrong_elements"] == 0
    assert node.metrics()["products"] > 0


class FaultyLoad(Load):
    """Flips one bit of one product of the second window."""

    checks = 0

    def check(self, findings: Findings) -> None:
        self.checks += 1
        if self.checks == 2:
            self.product.view(torch.int32)[5, 3] ^= 1
        super().check(findings)


def test_a_flipped_bit_is_named_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    settings = declared(StressSettings, seconds=0.05, width=32, window_s=0.001)
    findings = run_load(FaultyLoad(settings, ALONE), settings, ALONE, lambda _: None)
    assert findings.wrong == 1
    (one,) = findings.named
    assert (one.what, one.position) == ("product", (5, 3))
    assert one.found == pytest.approx(one.expected, rel=1e-5)
    named = [{"what": one.what, "position": one.position, "expected": 1.0, "found": 2.0}]
    complain({"node": "n1", "gpu": "GPU-7", "device": "cuda:0", "rank": 3, "named": named})
    assert (
        "n1: GPU-7 (rank 3): wrong product at [5, 3]: 2.0 in place of 1.0"
        in capsys.readouterr().err
    )


def test_of_many_wrong_elements_all_are_counted_and_few_named() -> None:
    findings = Findings()
    note_wrong("sum over ranks", torch.full((100,), torch.nan), torch.zeros(100), findings)
    assert (findings.wrong, len(findings.named)) == (100, MAX_NAMED)


def test_nvlink_is_judged_by_the_formula_on_one_node_only() -> None:
    """1 GiB over 4 GPUs moves 1.5 GiB from each."""
    gib = 2**30
    assert predicted_bytes(gib, 4, 1) == 1.5 * gib

    def rank(number: int, node: str) -> dict[str, Any]:
        sample = Sample(t=0, watts=700.0, sm_mhz=1980, celsius=60, slowed=False, sent=0, received=0)
        later = Sample(
            t=2, watts=500.0, sm_mhz=1700, celsius=70, slowed=True, sent=3 * gib, received=3 * gib
        )
        return {
            "rank": number, "node": node, "wrong": 0, "products": 4, "rates": [2.0, 1.0, 2.0],
            "seconds": 2.0, "telemetry": summary([sample, later]),
        }  # fmt: skip

    figures = figures_of([rank(n, "a") for n in range(4)], predicted_bytes(gib, 4, 2))
    assert figures["nvlink_over_formula"] == (1.0, "x")
    assert figures["watts"] == (2400, "W")
    assert figures["least_sm_clock"] == (1700, "MHz")
    assert figures["slowed_samples"] == (4, "samples")
    across = figures_of([rank(0, "a"), rank(1, "b")], predicted_bytes(gib, 2, 2))
    assert "nvlink_over_formula" not in across


def test_the_check_on_gpus_names_broken_gates_and_missing_figures() -> None:
    """By the workload's own declaration."""
    figures = {
        name: {"value": value}
        for name, value in {
            "relative_error": 0.5,
            "tolerance_used": 31.0,
            "error_ratio": 1.0,
            "top1_agreement": 0.5,
            "kl": 0.001,
        }.items()
    }
    broken = gates_broken("tp_check", figures)
    assert broken == ["tolerance_used = 31, gate {'max': 1}", "top1_wrong is missing"]
    # No counters of NVLink here: a gate of a figure that need not be there holds.
    assert gates_broken("stress", {"wrong_elements": {"value": 0}, "tflops": {"value": 1}}) == []
