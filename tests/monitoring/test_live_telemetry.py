"""GPUs of a node while a run lasts: from the sampler's rows to samples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.monitoring.monitor import Monitor
from orchestrator.adapters.store.journal import Journal
from orchestrator.adapters.store.latest_progress import ProgressFile
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.codec import to_json
from orchestrator.core.model.facts import Facts, Gpu
from orchestrator.core.run.events import Probed
from orchestrator.core.run.node_telemetry import TelemetryRead
from orchestrator.core.run.state import new_state
from orchestrator.node_agent.telemetry import newest_readings
from orchestrator.parsing.replies.kit_records import parse_report
from tests.cli.runs_on_disk import begin
from tests.core.world import request

LATEST = {
    "power": {0: [250_000, 240_000, 5_000], 1: [None, 300_000, 6_000]},
    "clocks": {0: [1980, 2619, 0x4 | 0x40, 61], 1: [1200, 2619, 0x80, 88]},
    "memory": {0: [10], 1: [20]},
    "nvlink": {0: [-1, 3, 1], 1: [-1, 2, 4]},
}


def test_rows_of_gpus_become_figures_of_their_node(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.jsonl"
    newest_readings.report(str(path), LATEST)
    (line,) = path.read_bytes().splitlines()

    assert parse_report("n1", 0, line, 0) == TelemetryRead(
        node="n1",
        watts=550,
        temperature_c=88,
        memory_used_bytes=30,
        nvlink_sent_bytes=5 * 1024,
        nvlink_received_bytes=5 * 1024,
        throttled={"thermal": 1, "power": 1},
    )


def test_what_one_gpu_does_not_say_is_not_known_of_the_node() -> None:
    assert newest_readings.summarise({"memory": {0: [10], 1: [None]}}) == {}
    assert newest_readings.summarise({}) == {}


@given(
    st.dictionaries(
        st.sampled_from(["watts", "throttled", "temperature_c"]),
        st.none()
        | st.text()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.lists(st.integers()),
    )
)
def test_a_node_that_lies_says_nothing_harmful(told: dict[str, object]) -> None:
    line = json.dumps({"type": "telemetry", **told}).encode()
    read = parse_report("n1", 0, line, 0)

    assert isinstance(read, TelemetryRead)
    assert read.watts is None or read.watts >= 0
    assert read.throttled == {}


def test_readings_replace_what_the_probe_found(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    gpu = Gpu(index=0, name="H200", memory_bytes=100, memory_used_bytes=1, power_w=70.0)
    with Journal(folder.journal) as journal:
        facts = Facts(node="a", hostname="a", gpus=(gpu,))
        journal.append(1.0, to_json(Probed(node="a", facts=facts)))
    file = ProgressFile(folder.progress, lambda: 0.0)
    file.on_event(2.0, TelemetryRead(node="a", watts=650.0), new_state(request("a", "b")))
    found = {(s.metric.name, *s.labels): s.value for s in Monitor(Layout(tmp_path)).collect(3.0)}

    assert found["orchestrate_node_gpu_power_watts", "r1", "a"] == pytest.approx(650)
    assert found["orchestrate_node_gpu_memory_used_bytes", "r1", "a"] == 1
