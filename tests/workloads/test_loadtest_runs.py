"""The load test as a whole: figures, refusals, failures, several nodes, what it leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from loadtest.base.job import Target
from loadtest.client import trivial_server
from loadtest.load.trivial_servers import trivial_servers
from orchestrator.parsing.replies.report_sections import parse_sections
from tests.time_limits import Deadline
from tests.workloads.conftest import WORKLOADS, NodeFolder, finish, node_folder

LOADTEST = WORKLOADS / "loadtest"
SCHEMA = Path(__file__).parents[1] / "fixtures" / "llmd" / "br_v0_2_1_json_schema.json"
# A busy machine of tests must not decide whether a load was valid, unless that is the subject.
PATIENT = ("--max-lag=5", "--rate-tolerance=0.5", "--warmup=2")
pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def quick() -> Iterator[Target]:
    with trivial_servers(1) as (target,):
        yield target


@contextmanager
def server(**options: float) -> Iterator[tuple[Target, subprocess.Popen[str]]]:
    """A server of known capacity: tokens at an interval, a number of places."""
    process = subprocess.Popen(
        [sys.executable, trivial_server.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(options) + "\n")
        process.stdin.flush()
        port = int(process.stdout.readline())
        yield Target(url=f"http://127.0.0.1:{port}/v1", model="trivial"), process
    finally:
        process.kill()
        process.communicate()


def start(node: NodeFolder, target: Target, *options: str, **env: str) -> subprocess.Popen[str]:
    script = str(LOADTEST / "run.py")
    return node.start(script, f"--endpoint={target.url}", *PATIENT, *options, **env)


def records_of(node: NodeFolder) -> list[dict[str, Any]]:
    lines = (node.path / "output" / "requests.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_run_leaves_figures_records_and_reports(tmp_path: Path, quick: Target) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    node = node_folder(tmp_path / "node")

    _, err = finish(process := start(node, quick, "--rate=100", "--duration=2"))

    assert (process.returncode, err) == (0, "")
    metrics = node.metrics()
    for name in (
        "ttft_p50 ttft_p99 itl_p50 request_latency_p95 delivered_rate schedule_lag_p99 goodput "
        "output_tokens_per_s failed_requests client_ceiling load_valid"
    ).split():
        assert name in metrics
    assert (metrics["load_valid"], metrics["failed_requests"]) == (1, 0)
    assert metrics["delivered_rate"] == pytest.approx(100, rel=0.2)
    assert sorted(record["index"] for record in records_of(node)) == list(range(200))
    output = node.path / "output"
    found = json.loads((output / "loadtest.json").read_text())
    ttft = found["stages"][0]["latencies"]["ttft"]["percentiles"]
    assert ttft["p95"]["certified"] >= ttft["p95"]["value"]
    assert (ttft["p99"]["certified"], ttft["p99"]["certificate_needs"]) == (None, 662)
    sections = parse_sections((output / "report_sections.json").read_bytes(), where="it")
    assert len(sections.sections) >= 6
    report = json.loads((output / "llmd_report_v0.2.1.json").read_text())
    jsonschema.validate(report, json.loads(SCHEMA.read_text()))
    assert report["results"]["request_performance"]["aggregate"]["requests"]["total"] == 200


def test_two_nodes_make_one_result(tmp_path: Path, quick: Target) -> None:
    """Each has every second request of the schedule; percentiles are those of all together."""
    nodes = [node_folder(tmp_path / name) for name in ("first", "second")]
    ranks = [
        start(
            node,
            quick,
            "--rate=60",
            "--duration=2",
            RANK=str(rank),
            WORLD_SIZE="2",
            ORCHESTRATE_NODE=node.path.name,
        )
        for rank, node in enumerate(nodes)
    ]
    for rank in ranks:
        _, err = finish(rank)
        assert rank.returncode == 0, err
    both = node_folder(tmp_path / "both")
    folders = [str(node.path / "output") for node in nodes]

    _, err = finish(process := both.start(str(LOADTEST / "combine.py"), *folders))

    assert (process.returncode, err) == (0, "")
    metrics = both.metrics()
    assert metrics["completed_requests"] == 120
    assert metrics["delivered_rate"] == pytest.approx(60, rel=0.2)
    indices = [record["index"] for node in nodes for record in records_of(node)]
    assert sorted(indices) == list(range(120))
    every = sorted(record["chunks_us"][0] / 1e6 for node in nodes for record in records_of(node))
    assert metrics["ttft_p50"] == pytest.approx((every[59] + every[60]) / 2, abs=2e-6)


def test_nodes_of_different_loads_are_not_pooled(tmp_path: Path, quick: Target) -> None:
    nodes = [node_folder(tmp_path / name) for name in ("first", "second")]
    for rank, node in enumerate(nodes):
        share = {"RANK": str(rank), "WORLD_SIZE": "2"}
        finish(start(node, quick, "--rate=40", "--duration=0.5", f"--seed={rank}", **share))
    folders = [str(node.path / "output") for node in nodes]

    _, err = finish(process := nodes[0].start(str(LOADTEST / "combine.py"), *folders))

    assert process.returncode == 1
    assert "differ in the parameter seed" in err


def test_nodes_that_each_sent_the_whole_load_are_not_pooled(tmp_path: Path, quick: Target) -> None:
    node = node_folder(tmp_path / "node")
    finish(start(node, quick, "--rate=40", "--duration=0.5"))
    folder = str(node.path / "output")

    _, err = finish(process := node.start(str(LOADTEST / "combine.py"), folder, folder))

    assert process.returncode == 1
    assert "did not share one load" in err


@pytest.mark.slow
def test_four_times_the_capacity_is_over_saturation_and_no_number(tmp_path: Path) -> None:
    """8 places, 17 intervals of 10 ms: about 47 requests/s."""
    node = node_folder(tmp_path / "node")
    with server(interval_ms=10, slots=8) as (target, _):
        _, err = finish(process := start(node, target, "--rate=190", "--duration=60"))

    assert process.returncode == 1
    assert "invalid: over-saturated after" in err
    metrics = node.metrics()
    assert metrics["load_valid"] == 0
    assert not [name for name in metrics if name.startswith(("ttft", "goodput", "itl"))]
    assert records_of(node)


def test_a_server_that_dies_fails_the_run_and_loses_nothing(tmp_path: Path) -> None:
    node = node_folder(tmp_path / "node")
    with server(interval_ms=1) as (target, serving):
        process = start(node, target, "--rate=100", "--duration=4")
        wait_for_records(node, process)
        serving.kill()
        _, err = finish(process)

    assert process.returncode == 1
    assert re.search(r"^OR-SERVE-008: .* requests failed, .* refused.* due ", err, re.MULTILINE)
    metrics = node.metrics()
    assert metrics["failed_requests"] > 0
    records = records_of(node)
    answered = [record for record in records if "failure" not in record]
    assert metrics["completed_requests"] == len(answered) > 0
    # What failed is in no latency: no first token took as long as a time-out would.
    assert metrics["ttft_p99"] == pytest.approx(
        max(record["chunks_us"][0] / 1e6 for record in answered), rel=1
    )


def test_a_stall_of_the_server_is_in_the_tail(tmp_path: Path) -> None:
    """What was due while it stood still waited from then on, although the client was on time."""
    node = node_folder(tmp_path / "node")
    with server(interval_ms=1) as (target, serving):
        process = start(node, target, "--rate=20", "--duration=4")
        wait_for_records(node, process)
        serving.send_signal(signal.SIGSTOP)
        time.sleep(1.0)  # the stall
        serving.send_signal(signal.SIGCONT)
        _, err = finish(process)

    assert process.returncode == 0, err
    metrics = node.metrics()
    assert metrics["ttft_p99"] > 0.7
    assert metrics["ttft_p50"] < metrics["ttft_p99"] / 2
    assert metrics["delivered_rate"] == pytest.approx(20, rel=0.1)


def test_several_processes_send_one_schedule(tmp_path: Path, quick: Target) -> None:
    node = node_folder(tmp_path / "node")

    _, err = finish(process := start(node, quick, "--rate=100", "--duration=1", "--processes=3"))

    assert process.returncode == 0, err
    assert sorted(record["index"] for record in records_of(node)) == list(range(100))


def test_a_run_that_is_stopped_keeps_what_was_measured(tmp_path: Path, quick: Target) -> None:
    node = node_folder(tmp_path / "node")
    process = start(node, quick, "--rate=50", "--duration=600")
    wait_for_records(node, process)
    os.kill(process.pid, signal.SIGTERM)

    finish(process)

    assert node.metrics()["completed_requests"] == len(
        [record for record in records_of(node) if "failure" not in record]
    )
    found = json.loads((node.path / "output" / "loadtest.json").read_text())
    assert not found["complete"]
    assert node.metrics()["load_valid"] == 0
    assert node.metrics()["ttft_p50"] > 0
    assert re.fullmatch(r"stopped after [0-9.]+ s of 600 s", found["stages"][0]["reasons"][0])
    verdict = (node.path / "output" / "report_sections.json").read_text()
    assert "INVALID: stopped after" in verdict
    assert "as configured" not in verdict


def test_a_short_sweep_ends_at_the_rate_that_is_too_much(tmp_path: Path) -> None:
    """8 places, 17 intervals of 5 ms: about 94 requests/s; 3 seconds of 400 are not valid."""
    node = node_folder(tmp_path / "node")
    options = "--arrival=sweep --rate=10 --final-rate=400 --steps=2 --duration=3"
    with server(interval_ms=5, slots=8) as (target, _):
        _, err = finish(process := start(node, target, *options.split()))

    assert process.returncode == 0, err
    assert node.metrics()["highest_rate"] == pytest.approx(10)
    found = json.loads((node.path / "output" / "loadtest.json").read_text())
    assert [stage["valid"] for stage in found["stages"]] == [True, False]
    assert "over-saturated after 3 s: 400 requests/s arrive" in found["stages"][1]["reasons"][0]


def test_an_engine_that_ends_is_the_cause_and_not_what_it_wrote(tmp_path: Path) -> None:
    node = node_folder(tmp_path / "node")
    broken = tmp_path / "broken.py"
    broken.write_text("import sys\nsys.exit('the last line of the engine')\n")
    command = f"{sys.executable} {broken} {{model}} {{host}} {{port}}"
    script = str(LOADTEST / "run.py")

    _, err = finish(
        process := node.start(script, "--engine=custom", "--model=m", f"--command={command}")
    )

    assert process.returncode == 1
    assert "the last line of the engine" in err
    assert err.splitlines()[-1].startswith("OR-SERVE-004: engine 0 (custom) ended with status 1")


@pytest.mark.slow
def test_a_search_ends_at_a_rate_that_meets_the_objective(tmp_path: Path) -> None:
    """8 places, 17 intervals of 5 ms: about 94 requests/s; nobody may wait for 0.3 s."""
    node = node_folder(tmp_path / "node")
    options = "--arrival=search --rate=40 --duration=2 --slo-ttft=0.3 --slo-share=0.9 --steps=4"
    with server(interval_ms=5, slots=8) as (target, _):
        _, err = finish(process := start(node, target, *options.split()))

    assert process.returncode == 0, err
    assert 20 <= node.metrics()["highest_rate"] < 120
    found = json.loads((node.path / "output" / "loadtest.json").read_text())
    assert len(found["stages"]) == 4


@pytest.mark.parametrize(
    "options, status, words",
    [
        (["--rate=0"], 2, "argument --rate: expected float > 0"),
        (["--arrival=bursty"], 2, "argument --arrival: expected one of poisson, constant"),
        (["--prompts={empty}"], 2, "empty.jsonl: no line with a request"),
        (["--prompts={broken}"], 2, "broken.jsonl:2: not JSON"),
        (["--prompts={wrong}"], 2, "wrong.jsonl:1: neither {prompt} nor {messages"),
        (["--prompts=missing"], 2, "missing: No such file"),
        (["--arrival=trace", "--trace={wrong}"], 2, "wrong.jsonl:1: timestamp is None"),
        (["--model=other"], 2, "/v1 does not serve other, but trivial"),
        (
            ["--endpoint=http://127.0.0.1:1/v1"],
            2,
            "\nOR-SERVE-001: http://127.0.0.1:1/v1 cannot be reached: [Errno 111]",
        ),
        (["--endpoint=ftp://host"], 2, "expected a URL such as http://HOST:8000/v1"),
    ],
)
def test_what_cannot_be_is_refused_before_any_load(
    tmp_path: Path, quick: Target, options: list[str], status: int, words: str
) -> None:
    node = node_folder(tmp_path / "node")
    files = {"empty": "\n", "broken": '{"prompt": "a"}\n{"prompt', "wrong": '{"text": "a"}\n'}
    for name, text in files.items():
        (tmp_path / f"{name}.jsonl").write_text(text)
    paths = {name: str(tmp_path / f"{name}.jsonl") for name in files}
    given = [option.format(**paths) for option in options]

    _, err = finish(process := start(node, quick, *given))

    assert process.returncode == status
    assert words in f"\n{err}"
    assert not (node.path / "output" / "requests.jsonl").exists()


def test_a_trace_is_replayed_with_its_lengths(tmp_path: Path, quick: Target) -> None:
    node = node_folder(tmp_path / "node")
    trace = tmp_path / "trace.jsonl"
    requests = [(5000 + 100 * number, number + 1) for number in range(10)]
    trace.write_text(
        "".join(
            json.dumps({"timestamp": at, "input_length": 3, "output_length": tokens}) + "\n"
            for at, tokens in requests
        )
    )

    _, err = finish(process := start(node, quick, "--arrival=trace", f"--trace={trace}"))

    assert process.returncode == 0, err
    records = sorted(records_of(node), key=lambda record: record["index"])
    assert [record["output_tokens"] for record in records] == list(range(1, 11))
    assert [record["scheduled"] for record in records] == pytest.approx(
        [number / 10 for number in range(10)], abs=1e-5
    )


def wait_for_records(node: NodeFolder, process: subprocess.Popen[str]) -> None:
    """Until the load is under way."""
    path = node.path / "output" / "requests.jsonl"
    limit = Deadline(60)
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None, process.communicate()
        assert not limit.passed
        time.sleep(0.02)
