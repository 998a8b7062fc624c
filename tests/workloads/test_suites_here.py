"""What the bundled suites ask of machines without a GPU is something that can pass there."""

from __future__ import annotations

import pytest

from loadtest.judge.backlog import Backlog
from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.parsing.inputs.workloads.jobs import make_job
from tests.architecture.source import ROOT
from tests.workloads.test_loadtest_saturation import request

ANSWER_S = 1.0  # of a small model on a busy core


@pytest.mark.parametrize("suite", ["smoke", "quick"])
def test_loads_are_long_enough_to_tell_that_a_slow_server_keeps_up(suite: str) -> None:
    catalog = Catalog.from_environment({"ORCHESTRATE_HOME": "/nonexistent"}, project=ROOT)
    step = catalog.read_suite(catalog.find_suite(suite)).step("load")
    values = make_job(catalog.workload(step.workload), step.settings).values
    rate, duration_s = float(str(values["rate"])), float(str(values["duration"]))
    stage = Backlog(duration_s)
    for number in range(round(rate * duration_s)):
        stage.add(request(number / rate, number / rate + ANSWER_S))

    assert stage.keeps_up
