"""Inference over hosts that cannot reach each other: complete, and the bytes of one host."""

from __future__ import annotations

import json
from typing import Any

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.architecture.source import ROOT
from tests.hosts.dividing import merged, records
from tests.hosts.processes import remains
from tests.hosts.running import Desk

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

MLPERF = ROOT / "workloads" / "mlperf"
SAMPLES = 50  # the last group is not full


def infer(desk: Desk, nodes: str) -> tuple[str, dict[str, Any], bytes]:
    """The workload on these nodes, to its end: the run, its result, the merged outputs."""
    job = desk.start_workload(MLPERF, f"samples={SAMPLES}", options=["--nodes", nodes])
    ending = job.end(within_s=90)
    assert ending.code == 0, job.err
    return job.run, ending.result, merged(desk, job.run) or b""


def test_a_cut_data_plane_costs_nothing(desk: Desk, hosts: VirtualHosts) -> None:
    """Every sample once, in input order, byte for byte as on one host, and nothing left behind.

    At the end a node with nothing to do takes over what the other would end last. Where both then
    answer, which a busy machine decides, the second answers are dropped, and no others are.
    """
    _, alone, expected = infer(desk, "vh1")
    hosts.cut_all_data()
    run, result, outputs = infer(desk, "vh2,vh3")

    counted = {"total": SAMPLES, "done": SAMPLES, "failed": 0, "duplicates": 0}
    assert alone["samples"] == counted
    answered = [[r["sample"] for r in records(desk, run, "output", n)] for n in ("vh2", "vh3")]
    twice = set.intersection(*map(set, answered))
    assert [len(set(each)) for each in answered] == [len(each) for each in answered]
    assert result["samples"] == {**counted, "duplicates": len(twice)}
    assert result["status"] == alone["status"] == "succeeded"
    assert outputs == expected
    lines = [json.loads(line) for line in outputs.splitlines()]
    assert [line["index"] for line in lines] == list(range(SAMPLES))
    _check_figures(result["metrics"], lines)
    assert not remains(hosts, run)


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
