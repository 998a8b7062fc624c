"""Inference over hosts that cannot reach each other: complete, and the bytes of one host."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.hosts.running import Desk, remains

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

SAMPLES = 50  # the last group is not full


def infer(desk: Desk, nodes: str, run: str) -> tuple[dict[str, Any], Path]:
    """`run --workload mlperf` on these nodes to its end: the result, and the merged outputs."""
    fixed = ["--cluster", str(desk.cluster), "--workload", "mlperf", "--run-id", run]
    asked = ["--nodes", nodes, "--set", f"samples={SAMPLES}", "--json"]
    done = desk.command("run", *fixed, *asked, within_s=90)
    assert done.returncode == 0, done.stderr + done.stdout[-4000:]
    result = json.loads(done.stdout.splitlines()[-1])
    return result, desk.folder(run) / "artifacts" / "samples.jsonl"


def test_a_cut_data_plane_costs_nothing(desk: Desk, hosts: VirtualHosts) -> None:
    """Every sample once, in input order, byte for byte as on one host, and nothing left behind."""
    run = desk.next_run
    alone, expected = infer(desk, "vh1", f"{run}-alone")
    hosts.cut_all_data()
    result, outputs = infer(desk, "vh2,vh3", f"{run}-divided")

    counted = {"total": SAMPLES, "done": SAMPLES, "failed": 0, "duplicates": 0}
    assert result["samples"] == alone["samples"] == counted
    assert result["status"] == alone["status"] == "succeeded"
    content = outputs.read_bytes()
    assert content == expected.read_bytes()
    lines = [json.loads(line) for line in content.splitlines()]
    assert [line["index"] for line in lines] == list(range(SAMPLES))
    assert hashlib.sha256(content).hexdigest() in outputs.with_suffix(".sha256").read_text()
    _check_figures(result["metrics"], lines)
    assert not remains(hosts, f"{run}-divided")


def _check_figures(metrics: Any, lines: list[Any]) -> None:
    """Each node that answered anything has its rates, and they say the same as the outputs."""
    value = {name: metric["value"] for name, metric in metrics.items()}
    rates = ("samples_per_s", "prompt_tokens_per_s", "generated_tokens_per_s")
    solo = [value.get(f"{rate}.{node}") for node in ("vh2", "vh3") for rate in rates]
    assert any(solo)
    assert all(solo[:3]) == any(solo[:3])
    assert all(solo[3:]) == any(solo[3:])
    tokens = sum(len(line["tokens"]) for line in lines)
    per_sample = value["generated_tokens_per_s"] / value["samples_per_s"]
    assert per_sample == pytest.approx(tokens / SAMPLES)
    assert 0 < value["division_efficiency"] <= 1.05
    assert 0 < value["latency_p50"] <= value["latency_p90"] <= value["latency_p99"]
