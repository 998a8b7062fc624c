"""The acceptance workload's measurements at tiny sizes on a CPU, and one run of the whole."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import orchestrate_kit as kit
from acceptance.base.options import Options
from acceptance.measure import (
    collectives,
    gpu_health,
    launches,
    network_ports,
    patterns,
    products,
    streams,
    timing,
)
from acceptance.show.report_sections import report
from orchestrator.adapters.report.document import load_report
from orchestrator.adapters.report.html_report import render_html
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.store.run_list import read_result
from orchestrator.core.base.codec import to_json
from orchestrator.core.model.facts import Ecc, Facts, Gpu, Hca
from orchestrator.parsing.replies.report_sections import parse_sections
from tests.architecture.source import ROOT
from tests.workloads.acceptance_evidence import evidence
from tests.workloads.conftest import (
    ACCEPTANCE,
    WORKLOADS,
    finish,
    free_port,
    node_folder,
    succeed,
)
from tests.workloads.declared import declared

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TINY = replace(
    declared(Options),
    max_bytes=8192,
    sustained_s=0.01,
    search_trials=1,
    stream_mib=1,
    steps=2,
    warmup_steps=1,
).for_cpu()
RUN_S = 110
AS_ON_GPUS = Path(__file__).parent / "programs" / "acceptance_as_on_gpus.py"


@pytest.mark.parametrize(
    "words", ["--max-bytes=8", "--size-factor=1", "--sustained-s=0", "--train-width=65"]
)
def test_senseless_options_are_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        kit.parse(Options, [words])
    assert words.split("=", maxsplit=1)[0] in capsys.readouterr().err


def test_products_are_measured_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are positive, every sampled cell is right, and equal inputs give equal bits."""
    monkeypatch.setattr(products, "WINDOW_S", 0.02)
    shapes = products.find_shapes("bf16", CPU, TINY)
    found = products.measure(shapes, "bf16", CPU, TINY)
    assert found["best"]["median"] > 0
    assert found["wrong"] == 0
    sustained = products.sustain(CPU, TINY)
    assert sustained["different_cells"] == 0
    assert sustained["compared_cells"] == 128 * 128 * len(sustained["windows"])
    assert products.sustain(CPU, TINY)["digest"] == sustained["digest"]


@pytest.mark.parametrize("kind", ["bf16", "fp8"])
def test_a_wrong_cell_of_a_product_is_noticed(kind: str) -> None:
    """One flipped exponent in a sampled row."""
    product = products.Product((64, 32, 128), kind, CPU, seed=0)
    product.out = (product.a.float() @ product.b.float().t()).to(torch.bfloat16)
    assert product.wrong_cells() == 0
    product.out[0, 5] += 64.0
    assert product.wrong_cells() == 1


def test_memory_is_measured_and_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four kernels; one that leaves an element out is found."""
    found = streams.measure(CPU, TINY)
    assert set(found["kernels"]) == {"copy", "scale", "add", "triad"}
    assert all(0 < way["median"] <= way["best"] for k in found["kernels"].values()
               for way in k.values())  # fmt: skip
    assert (found["wrong"], found["checked"]) == (0, 3 * 2**20 // 4)
    whole = streams._kernels

    def broken(name: str, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> streams.Kernels:
        return {**whole(name, a, b, c), "triad": lambda: torch.add(b[:-1], c[:-1], out=a[:-1])}

    monkeypatch.setattr(streams, "_kernels", broken)
    assert streams.measure(CPU, TINY)["wrong"] > 0


def test_patterns_find_a_cell_that_sticks_and_lines_that_mix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over several blocks: a bit that is always 1, and two blocks that are the same memory."""
    monkeypatch.setattr(patterns, "BLOCK_BYTES", 1 << 16)
    monkeypatch.setattr(patterns, "COMPARED_ITEMS", 1000)
    items = (1 << 20) // 8
    sound = patterns.measure(CPU, TINY)
    assert sound == {"wrong": 0, "checked": 4 * items, "gb": (1 << 20) / 1e9}
    blocks = list(patterns._blocks(CPU, TINY))
    alternating = patterns._alternating

    def stuck(part: torch.Tensor, first: int) -> None:
        alternating(part, first)
        if first == 3 and part.numel() > 1000:  # the memory, and not what is expected of it
            part[1717] |= 2

    monkeypatch.setattr(patterns, "_alternating", stuck)
    assert patterns.measure(CPU, TINY)["wrong"] == 1
    monkeypatch.setattr(patterns, "_alternating", alternating)
    monkeypatch.setattr(patterns, "_blocks", lambda *_: [*blocks[:-1], blocks[0]])
    mixed = 2 * ((1 << 16) // 8)
    assert patterns.measure(CPU, TINY)["wrong"] == mixed, "only addresses tell these apart"


def test_launches_are_counted_by_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "ROUNDS", 3)
    found = launches.measure(CPU)
    assert 0 < found["slowest"] <= found["k_per_s"]
    assert found["us"] == pytest.approx(1e3 / found["k_per_s"])


def test_what_is_between_iterations_is_not_timed() -> None:
    """Warm-up, then as many iterations as asked, each with its preparation before it."""
    told: list[str] = []
    times = timing.timed(
        lambda: told.append("work"), CPU, warmup=2, iterations=3, before=lambda: told.append("-")
    )
    assert told == ["-", "work"] * 5
    assert len(times.each) == 3
    assert sum(times.each) <= times.total


def exchange(collective: str, rank: int, ranks: int, share: int) -> collectives.Exchange:
    """One that was already run: the target holds what the others' patterns give, worked out by
    another way than the check does.
    """
    total = share * ranks
    inputs = [collectives.pattern(0, total, other, CPU) for other in range(ranks)]
    mine = slice(rank * share, (rank + 1) * share)
    targets = {
        "all-reduce": sum(inputs[1:], inputs[0].clone()),
        "all-gather": torch.cat([inputs[r][r * share : (r + 1) * share] for r in range(ranks)]),
        "reduce-scatter": sum((one[mine] for one in inputs[1:]), inputs[0][mine].clone()),
        "all-to-all": torch.cat([one[mine] for one in inputs]),
    }
    gathers = collective == "all-gather"
    return collectives.Exchange(
        collective=collective,
        placement="out-of-place",
        rank=rank,
        ranks=ranks,
        source=torch.zeros(share if gathers else total),
        target=targets[collective],
        run=lambda: None,
    )


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(collectives.COLLECTIVES),
    st.integers(2, 5),
    st.integers(1, 40),
    st.data(),
)
def test_right_results_pass_and_one_wrong_element_is_counted(
    collective: str, ranks: int, share: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(0, ranks - 1))
    one = exchange(collective, rank, ranks, share)
    assert one.wrong() == (0, one.target.numel())
    at = data.draw(st.integers(0, one.target.numel() - 1))
    one.target[at] += 1
    assert one.wrong()[0] == 1


@pytest.mark.parametrize("collective", collectives.COLLECTIVES)
def test_inputs_are_filled_in_chunks(collective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunked fill is the pattern from its first element on."""
    monkeypatch.setattr(collectives, "CHECK_ITEMS", 7)
    one = exchange(collective, 1, 3, 10)
    one.fill()
    first = 10 if collective == "all-gather" else 0
    expected = collectives.pattern(first, one.source.numel(), 1, CPU)
    assert torch.equal(one.source, expected)
    assert one.wrong()[0] == 0


def test_huge_results_are_checked_at_both_ends_and_in_the_middle() -> None:
    windows = collectives._windows(2**32, 8)
    assert windows == [0, 2**31, 2**32 - collectives.CHECK_ITEMS]


FACTS = to_json(
    Facts(
        node="n1",
        hostname="n1",
        driver="580.1",
        gpus=(
            Gpu(
                index=0,
                name="NVIDIA H200",
                uuid="GPU-0",
                memory_bytes=143_771 << 20,
                power_limit_w=700.0,
                sm_clock_max_mhz=1980,
                ecc=Ecc(enabled=True),
            ),
        ),
        hcas=(
            Hca(name="mlx5_0", port=1, state="ACTIVE", link_layer="InfiniBand", rate_gbit=400.0),
            Hca(name="mlx5_1", port=1, state="DOWN", link_layer="InfiniBand", rate_gbit=400.0),
        ),
    )
)


def test_network_ports_are_those_that_the_probe_found() -> None:
    """Active ports with their rates; a port that is down carries nothing."""
    (found,) = network_ports.active_ports(FACTS)

    assert found == {"device": "mlx5_0", "link_layer": "InfiniBand", "gb_s": 50.0}
    assert network_ports.active_ports({}) == []


def test_what_does_not_change_of_a_gpu_is_what_the_probe_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A GPU that the probe did not see, and a node without facts, have unknowns instead."""
    asked = {"gpus": {"GPU-0": {"power_w": 80.0}, "GPU-1": {"power_w": 90.0}}, "unseen": ""}
    monkeypatch.setattr(gpu_health, "_now", lambda: asked)

    gpus = gpu_health.state(FACTS)["gpus"]
    assert gpus["GPU-0"] == {
        "name": "NVIDIA H200",
        "driver": "580.1",
        "power_limit_w": 700.0,
        "sm_clock_max_mhz": 1980,
        "ecc_mode": "Enabled",
        "total_mib": 143_771.0,
        "power_w": 80.0,
    }
    assert gpus["GPU-1"] == {**dict.fromkeys(gpu_health.CONSTANT), "power_w": 90.0}
    assert gpu_health.state({})["gpus"]["GPU-0"]["name"] is None


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_report_is_what_the_product_accepts(nodes: int, tmp_path: Path) -> None:
    """All kinds of sections that GPUs give, through validation into HTML."""
    from acceptance.judge.judging import judge_evidence
    from acceptance.judge.measurements import overall_verdict

    found = judge_evidence(evidence(nodes, 4))
    content = report(evidence(nodes, 4), found, overall_verdict(found, gpu=True))
    parsed = parse_sections(json.dumps(content).encode(), where="x")
    kinds = {section.kind for section in parsed.sections}
    assert kinds == {"text", "tiles", "table", "lines", "heat", "bars", "spread"}
    titles = {getattr(section, "title", "") for section in parsed.sections}
    assert ("More nodes, less speed" in titles) == (nodes > 1)
    assert {"Bus bandwidth, inside a node", "GPU to GPU on n1", "Power during the test"} <= titles


NVIDIA_SMI = """#!{python}
import sys, time
query, *rest = [word for word in sys.argv[1:] if not word.startswith("--format")]
fields = query.partition("=")[2].split(",")
if "clocks_event_reasons.active" in fields:
    sys.exit("Field is not a valid field to query.")  # as an older driver says
known = {{"name": "NVIDIA H200", "clocks_throttle_reasons.active": "0x0000000000000004",
         "remapped_rows.pending": "No", "remapped_rows.failure": "No", "power.draw": "[N/A]"}}
while True:
    for gpu in range(2):
        cells = [f"GPU-{{gpu}}" if name == "uuid" else known.get(name, "0") for name in fields]
        print(", ".join(cells), flush=True)
    if not rest:
        break
    time.sleep(0.1)
"""
PAIRS = """
import json
rates = [[None, 370.0], [371.0, None]]
print(json.dumps({"copy engine": rates, "kernel": rates, "wrong": 0, "checked": 5, "notes": []}))
"""


@pytest.mark.timeout(2 * RUN_S)
def test_ranks_with_gpus_meet_and_ask_the_driver_once_a_node(tmp_path: Path) -> None:
    """Nobody waits for a rank that does not come; every GPU has its state, samples and pairs."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(NVIDIA_SMI.format(python=sys.executable))
    (tools / "nvidia-smi").chmod(0o755)
    (tmp_path / "pairs.py").write_text(PAIRS)
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps(FACTS))
    node = node_folder(tmp_path / "node")
    sizes = "--max-bytes=8192 --sustained-s=0.01 --search-trials=1 --stream-mib=1 --steps=2"
    model = "--train-width=64 --train-layers=1 --train-length=16 --train-batch=2"
    process = node.start(
        "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}",
        str(AS_ON_GPUS), str(WORKLOADS), str(tmp_path / "pairs.py"),
        *sizes.split(), *model.split(), "--train-vocabulary=64", "--warmup-steps=1",
        PATH=f"{tools}:{os.environ['PATH']}", ORCHESTRATE_FACTS=str(facts),
    )  # fmt: skip
    succeed(process)
    (path,) = (node.path / "output").glob("acceptance-*.json")
    for rank in json.loads(path.read_text())["ranks"]:
        assert rank["health"]["before"]["throttle"] == 4
        assert rank["health"]["after"]["power_w"] is None
        assert len(rank["health"]["samples"]) > 1
    told = json.loads((node.path / "output" / "acceptance.json").read_text())
    found = {one["id"]: one for one in told["figures"]}
    assert [found[id]["value"] for id in ("p2p-copy-engine", "gpu-ecc")] == [370.5, 0.0]
    # A rate of a CPU is below every gate of the GPU that it is taken for.
    assert found["matmul-bf16"]["verdict"] == "fail"
    assert found["wrong-bits"]["verdict"] == "pass"
    assert not any(one["missing"] for one in told["figures"])
    parse_sections((node.path / "output" / "report_sections.json").read_bytes(), where="x")


@pytest.mark.timeout(2 * RUN_S)
def test_the_whole_test_runs_on_two_nodes_of_this_machine(tmp_path: Path) -> None:
    """From the command to the report: right results, nothing gated, nothing missing."""
    cluster = tmp_path / "pair.yaml"
    defaults = {
        "transport": "local",
        "gpus": 0,
        "python": {"interpreter": sys.executable},
        "workdir": str(tmp_path / "node"),
    }
    cluster.write_text(json.dumps({"name": "pair", "defaults": defaults, "nodes": ["n[1-2]"]}))
    sizes = ("max_bytes=8192", "sustained_s=0.01", "search_trials=1", "stream_mib=1", "steps=2",
             "warmup_steps=1")  # fmt: skip
    words = [
        "run",
        "-C",
        str(cluster),
        "-W",
        str(ACCEPTANCE),
        "--run-id",
        "acc",
        "--color",
        "never",
    ]
    words += [word for size in sizes for word in ("--set", size)]
    home = tmp_path / "home"
    kept = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=tmp_path,
        env={**kept, "ORCHESTRATE_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = finish(process)
    assert process.returncode == 0, out[-3000:] + err[-3000:]
    assert "not gated: no GPU; results are right" in out
    assert "all-reduce, all nodes" in out
    folder = Layout(home).run("acc")
    result = read_result(folder)
    assert result is not None
    values = {name: metric.value for name, metric in result.metrics.items()}
    for name in ("figures_failed", "figures_invalid", "figures_missing", "wrong_results"):
        assert values[name] == 0
    assert math.isfinite(values["all_reduce_across"] or math.nan)
    told = json.loads((folder.node_artifacts("n1") / "acceptance.json").read_text())
    assert (told["schema_version"], told["verdict"], told["ranks"]) == (1, "not-gated", 2)
    assert {sweep["scope"] for sweep in told["sweeps"]} == {"all"}
    assert values["kernel_launches"] > 0
    assert 0 <= values["communication_hidden"] <= 1
    assert values["rank_lateness"] >= 0
    part = json.loads((folder.node_artifacts("n2") / "acceptance-n2.json").read_text())
    assert [rank["rank"] for rank in part["ranks"]] == [1]
    page = render_html(load_report(folder, result))
    assert "Bus bandwidth, across all nodes" in page
