"""What `scripts/gpu_check` loads and compares: its model, its runs, its shares."""

from __future__ import annotations

import json
import math
from itertools import chain
from pathlib import Path
from typing import cast

import pytest
from gpu_check_lib.serving_load import (
    ON_CPU,
    ON_GPU,
    LoadScale,
    inventory_of,
    measure_serving,
    planned_runs,
)
from gpu_check_lib.side_by_side import EngineProcess, compare_engines

from orchestrator.parsing.inputs.inventory_file import load_cluster
from orchestrator.parsing.inputs.workloads.jobs import make_job
from tests.workloads.conftest import bundled_workload

SUBJECTS = ("loadtest", "mlperf", "cross_check", "rates", "more_rates", "capacity")


@pytest.mark.parametrize("scale", [ON_CPU, ON_GPU])
def test_every_run_is_one_that_its_workload_takes(scale: LoadScale) -> None:
    cluster = load_cluster(json.dumps(inventory_of(scale.gpus)), "inventory.yaml")
    assert cluster.nodes[0].price_per_hour == 3
    for run in chain.from_iterable(planned_runs(scale, subject) for subject in SUBJECTS):
        job = make_job(bundled_workload(run.workload), run.settings)
        named = {setting.partition("=")[0] for setting in run.settings} - {"preset"}
        assert not named - set(job.values)


def test_a_run_that_fails_stops_no_other(tmp_path: Path) -> None:
    """What each came to is written before the next one begins."""
    found = tmp_path / "out" / "loadtest.json"
    found.parent.mkdir()
    seen = []

    def orchestrate(out: Path, name: str, *words: str) -> dict[str, object]:
        seen.append((name, json.loads(found.read_text()) if found.exists() else {}))
        if name == "load-within":
            raise ValueError("no last line")
        return {"status": "succeeded", "metrics": {"a": {"value": len(words)}}}

    measure_serving(ON_CPU, "loadtest", found.parent, orchestrate)
    assert [name for name, _ in seen] == ["load-within", "load-beyond", "load-power"]
    assert seen[1][1] == {"within": {"error": "ValueError: no last line"}}
    assert json.loads(found.read_text())["power"]["status"] == "succeeded"


class Paced:
    """An engine of known pace; together each takes longer by a known part."""

    def __init__(self, rate: float, slower: float) -> None:
        self.rate, self.slower = rate, slower
        self.asked = 0

    def begin(self) -> None:
        self.asked += 1

    def next(self) -> dict[str, float]:
        alone = self.asked % 2 == 1
        return {"began": 0.0, "ended": 1.0 if alone else self.slower, "tokens": self.rate}


def test_shares_are_those_of_the_sum_and_of_so_many_times_one() -> None:
    engines = [cast("EngineProcess", Paced(rate, 1.25)) for rate in (100.0, 300.0)]
    rounds = list(compare_engines(engines, math.inf))
    assert len(rounds) == 3
    assert rounds[-1]["share_of_the_sum"] == pytest.approx(0.8)
    assert rounds[-1]["share_of_so_many_times_one"] == pytest.approx(320 / (2 * 200))
    assert len(list(compare_engines(engines, 0.0))) == 1
