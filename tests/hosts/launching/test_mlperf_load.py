"""LoadGen beside a coordinator without workers, two unequal workers, no network between them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from tests.architecture.source import ROOT
from tests.hosts.dividing import merged, wait_for_outputs
from tests.hosts.processes import remains
from tests.hosts.running import Desk, Ending, Job, budgets
from tests.time_limits import assert_within

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]
pytest.importorskip("mlperf_loadgen", reason="hardware: LoadGen has no wheel for this machine")

MLPERF = ROOT / "workloads" / "mlperf"
NOTICE = "MLPerf-style, not an MLPerf result"


@pytest.fixture
def jw3(desk: Desk, hosts: VirtualHosts) -> Desk:
    """vh1 coordinates only; vh3 has a third of a processor, and neither reaches the other."""
    inventory, every = hosts.inventory.read_text(), 'nodes: ["vh[1-3]"]'
    assert every in inventory
    roles = "nodes: [{name: vh1, role: coordinator, gpus: 0}, 'vh[2-3]']"
    desk.cluster = desk.project.parent / "jw3.yaml"
    desk.cluster.write_text(inventory.replace(every, roles))
    hosts.cut_all_data()
    hosts.slow_node("vh3", 3.0)
    return desk


# More samples than the hosts answer in that time. Otherwise their number would be taken from the
# warm-up, and what else runs then says little of the test. Long answers: what a busy machine takes
# to hand out work is little beside them.
LOAD_S = 5.0
ENOUGH = (f"min_duration={LOAD_S:g}", "target_qps=90", "max_new_tokens=48", "ignore_eos=true")


def start(desk: Desk, *settings: str) -> Job:
    return desk.start_workload(MLPERF, "preset=short", *settings, options=budgets(lease=6))


def check_exact(desk: Desk, job: Job, ending: Ending, status: str) -> dict[str, Any]:
    """Complete, each query answered once, VALID by LoadGen's own word; the figures."""
    assert (ending.code, ending.result["status"]) == (0, status), job.err
    samples = ending.result["samples"]
    assert samples["done"] == samples["total"] >= 64
    assert samples["failed"] == samples["duplicates"] == 0
    lines = [json.loads(line) for line in (merged(desk, job.run) or b"").splitlines()]
    assert [line["index"] for line in lines] == list(range(samples["total"]))
    answers = {line["sample"] for line in lines}
    assert answers == set(range(64))
    folder = desk.folder(job.run)
    summary = (folder / "loadgen" / "mlperf_log_summary.txt").read_text()
    assert "Result is : VALID" in summary
    assert "No errors encountered" in summary
    _check_notice(folder, ending)
    assert {node["name"] for node in ending.result["nodes"]} == {"vh2", "vh3"}
    return {name: metric["value"] for name, metric in ending.result["metrics"].items()}


def _check_notice(folder: Path, ending: Ending) -> None:
    assert ending.result["notice"] == NOTICE
    for file in ("report.md", "report.html", "loadgen/NOTICE.txt"):
        assert NOTICE in (folder / file).read_text()


def test_unequal_workers_are_used_fully(jw3: Desk, hosts: VirtualHosts) -> None:
    """Nearly what the two do by themselves, together: 97 % and more where nothing else runs (see
    docs/mlperf.md); what else runs takes from whoever waits.
    """
    job = start(jw3, *ENOUGH)
    ending = job.end(within_s=200)

    figures = check_exact(jw3, job, ending, "succeeded")
    lost_s = LOAD_S * (1.0 - figures["division_efficiency"])
    assert_within("what two workers lose of a load", lost_s, 0.1 * LOAD_S)
    for rate in ("prompt_tokens_per_s", "generated_tokens_per_s"):
        alone = [figures[f"{rate}.{node}"] for node in ("vh2", "vh3")]
        assert min(alone) > 0  # a busy machine may have no more for vh2 than vh3 is allowed
        assert figures[rate] > max(alone)
    assert figures["loadgen_tokens_per_s"] == pytest.approx(
        figures["generated_tokens_per_s"], rel=0.1
    )
    assert not remains(hosts, job.run)


def test_a_worker_that_loses_its_power_costs_no_query(jw3: Desk, hosts: VirtualHosts) -> None:
    """In the middle: the other one answers what it had, and LoadGen hears of each query once."""
    job = start(jw3, "min_duration=5", "target_qps=40", "max_new_tokens=32", "ignore_eos=true")
    wait_for_outputs(jw3, job, 5, "vh3", within_s=120)  # a third of a processor, and what is left
    hosts.unplug("vh3")
    ending = job.end(within_s=200)

    check_exact(jw3, job, ending, "degraded")
    assert ending.states["vh3"] == "lost"
