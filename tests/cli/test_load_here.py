"""LoadGen asks, workers on this machine answer: valid by its own word, each query once."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.source import ROOT
from tests.cli.local_desk import open_local_desk
from tests.hosts.dividing import merged, records, wait_for_outputs
from tests.hosts.processes import Here, kill_rank
from tests.hosts.running import Desk, Ending, Job, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow]
pytest.importorskip("mlperf_loadgen", reason="hardware: LoadGen has no wheel for this machine")

ANSWERS = ROOT / "tests" / "workloads" / "programs" / "answers"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Two nodes that are this machine."""
    with open_local_desk(tmp_path, 2) as desk:
        yield desk


def summary(desk: Desk, run: str) -> str:
    return (desk.folder(run) / "loadgen" / "mlperf_log_summary.txt").read_text()


def detail(desk: Desk, run: str) -> dict[str, Any]:
    """LoadGen's own log: the last value of each key."""
    lines = (desk.folder(run) / "loadgen" / "mlperf_log_detail.txt").read_text().splitlines()
    entries = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
    return {entry["key"]: entry["value"] for entry in entries}


def outputs(desk: Desk, run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (merged(desk, run) or b"").splitlines()]


def check_valid(desk: Desk, job: Job, ending: Ending, status: str = "succeeded") -> int:
    """Complete, exact, nothing twice, and VALID by LoadGen's own summary; how many samples."""
    assert (ending.code, ending.result["status"]) == (0, status), job.err
    samples = ending.result["samples"]
    assert samples["failed"] == samples["duplicates"] == 0
    assert samples["done"] == samples["total"] > 0
    lines = outputs(desk, job.run)
    assert [line["index"] for line in lines] == list(range(samples["total"]))
    assert all(line["tokens"] == [line["sample"], 1, 2] for line in lines)
    assert "Result is : VALID" in summary(desk, job.run)
    assert "No errors encountered" in summary(desk, job.run)
    assert ending.result["metrics"]["loadgen_valid"]["verdict"] == "pass"
    return int(samples["total"])


def test_offline_is_one_query_of_all_samples(desk: Desk) -> None:
    """The leased samples are LoadGen's: their number, their order; its seeds are those of v6.1, and
    what it says stands beside our own figures.
    """
    job = desk.start_workload(ANSWERS, "slow=n2=3", "target_qps=330")
    ending = job.end()

    total = check_valid(desk, job, ending)
    log = detail(desk, job.run)
    assert total == log["generated_samples_per_query"]
    assert log["effective_sample_index_rng_seed"] == 2747215439041700203
    assert log["effective_min_duration_ms"] == 1000
    counts = [len(list(records(desk, job.run, "output", node))) for node in ("n1", "n2")]
    assert sum(counts) == total
    assert counts[0] > counts[1] > 0
    figures = ending.result["metrics"]
    theirs = figures["loadgen_samples_per_s"]["value"]
    assert theirs == pytest.approx(figures["samples_per_s"]["value"], rel=0.25)
    assert 0.5 < figures["division_efficiency"]["value"] <= 1.05
    assert ending.result["notice"] == "not a result of anything"
    report = (desk.folder(job.run) / "report.md").read_text()
    assert "not a result of anything" in report


@pytest.mark.parametrize(
    "scenario, most", [("server", 1), ("single-stream", 1), ("multi-stream", 4)]
)
def test_queries_that_come_by_and_by_are_answered(desk: Desk, scenario: str, most: int) -> None:
    """At least 64 of them, each by one worker, with the time to its first token."""
    settings = (f"scenario={scenario}", *(["target_qps=40"] if scenario == "server" else []))
    job = desk.start_workload(ANSWERS, *settings)
    ending = job.end()

    total = check_valid(desk, job, ending)
    queries = total / (8 if scenario == "multi-stream" else 1)
    assert queries >= 64
    figures = ending.result["metrics"]
    assert "division_efficiency" not in figures
    assert 0 < figures["loadgen_ttft_p50"]["value"] < figures["loadgen_latency_p90"]["value"]
    assert figures["loadgen_tpot_p50"]["value"] > 0
    begun = [record["sample"] for record in records(desk, job.run, "first")]
    assert sorted(begun) == list(range(total))
    leases = [record["groups"] for record in records(desk, job.run, "took")]
    assert sum(map(len, leases)) == total / most


def test_accuracy_logs_every_sample_once_with_its_answer(desk: Desk, tmp_path: Path) -> None:
    """What LoadGen has are the tokens of our own merged outputs."""
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_text("".join(f"{7 * n}\n" for n in range(21)))
    job = desk.start_workload(ANSWERS, "mode=accuracy", f"dataset={numbers}", "samples=0")
    ending = job.end()

    assert ending.code == 0, job.err
    lines = outputs(desk, job.run)
    assert sorted(line["sample"] for line in lines) == list(range(21))
    assert all(line["tokens"][0] == 7 * line["sample"] for line in lines)
    logged = json.loads((desk.folder(job.run) / "loadgen/mlperf_log_accuracy.json").read_text())
    theirs = {row["qsl_idx"]: row["data"] for row in logged}
    assert len(logged) == len(theirs) == 21
    for line in lines:
        tokens = b"".join(token.to_bytes(4, "little") for token in line["tokens"])
        assert bytes.fromhex(theirs[line["sample"]]) == tokens
    figures = ending.result["metrics"]
    assert figures["loadgen_valid"]["value"] == 1
    assert figures["accuracy_even"]["value"] == pytest.approx(11 / 21)
    assert figures["accuracy_half"]["value"] == 0.5
    assert "accuracy_no score" not in figures


def test_what_loadgen_does_not_accept_is_no_success(desk: Desk) -> None:
    """All samples are done, but too fast for the rules: the reason is LoadGen's own."""
    job = desk.start_workload(ANSWERS, "target_qps=20", "min_duration=2", "pause=0.0005")
    ending = job.end()

    assert ending.code == 1
    assert ending.result["samples"]["done"] == ending.result["samples"]["total"]
    failure = ending.result["failure"]
    assert failure["id"] == "OR-LOAD-004"
    assert "min duration not satisfied" in failure["cause"]
    assert "Increase expected QPS" in failure["cause"]
    assert failure["remedy"].startswith("--set target_qps=N with N above loadgen_samples_per_s")
    assert ending.result["metrics"]["loadgen_valid"]["verdict"] == "fail"
    assert merged(desk, job.run) is not None


def test_a_worker_that_dies_costs_no_query(desk: Desk) -> None:
    """What it had is answered by the other one, and LoadGen hears of each query once."""
    job = desk.start_workload(ANSWERS, "target_qps=150", "min_duration=2", "pause=0.01")
    wait_for_outputs(desk, job, 20, "n2")
    kill_rank(Here(), "here", job.run, 1, signal.SIGKILL)
    ending = job.end()

    check_valid(desk, job, ending, "degraded")


def test_a_sample_that_fails_fails_the_run_and_not_the_test(desk: Desk) -> None:
    """LoadGen would wait for its answer for ever."""
    job = desk.start_workload(ANSWERS, "refuse=3", "target_qps=100")
    ending = job.end()

    assert ending.code == 1
    assert ending.result["failure"]["id"] == "OR-WORK-003"
    samples = ending.result["samples"]
    assert samples["done"] + samples["failed"] == samples["total"]


def test_a_run_that_is_stopped_keeps_what_there_is(desk: Desk) -> None:
    """LoadGen ends with it, and cannot resume: that is refused, and nothing is lost. With --retry a
    second attempt is a test of its own.
    """
    job = desk.start_workload(ANSWERS, "target_qps=400", "min_duration=3", "pause=0.01")
    wait_for_outputs(desk, job, 20)
    job.interrupt()
    ending = job.end()

    assert (ending.code, ending.result["status"]) == (130, "stopped")
    assert 20 <= ending.result["samples"]["done"] < ending.result["samples"]["total"]
    assert (desk.folder(job.run) / "loadgen" / "mlperf_log_detail.txt").exists()
    kept = (desk.folder(job.run) / "result.json").read_bytes(), merged(desk, job.run)
    refused = desk.command("resume", job.run)
    assert refused.returncode == 2
    assert "a test cannot be resumed" in refused.stderr
    assert f"orchestrate resume --retry {job.run}" in refused.stderr
    assert ((desk.folder(job.run) / "result.json").read_bytes(), merged(desk, job.run)) == kept
    again = desk.resume(job.run, "--retry")
    check_total = again.end()
    assert check_total.code == 0, again.err
    assert (desk.folder(job.run) / "result.1.json").read_bytes() == kept[0]
    assert check_total.result["samples"]["done"] == check_total.result["samples"]["total"]


def test_a_coordinator_that_dies_takes_the_test_with_it(desk: Desk) -> None:
    """Nobody can go on with it: the next one says so, and a new attempt begins it anew."""
    job = desk.start_workload(ANSWERS, "target_qps=400", "min_duration=3", "pause=0.01")
    wait_for_outputs(desk, job, 20)
    job.abandon()
    taken = desk.resume(job.run).end()

    assert taken.code == 1
    assert taken.result["failure"]["id"] == "OR-LOAD-003"
    again = desk.resume(job.run, "--retry")
    ending = again.end()
    assert ending.code == 0, again.err
    wait_until("no LoadGen is left", lambda: not _loadgens(desk, job.run))


def _loadgens(desk: Desk, run: str) -> list[str]:
    """The command lines of LoadGen's processes of a run."""
    folder = str(desk.folder(run))
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "loadgen" in words and folder in words:
            found.append(words)
    return found


@pytest.mark.parametrize(
    "settings, said",
    [
        (["scenario=ofline"], "offline"),
        (["rules=official"], "13368 samples"),
        (["dataset=/nowhere/prompts.jsonl"], "/nowhere/prompts.jsonl"),
    ],
)
def test_bad_input_is_refused_before_any_load(desk: Desk, settings: list[str], said: str) -> None:
    job = desk.start_workload(ANSWERS, *settings)
    ending = job.end()

    assert ending.code == 2
    assert said in job.err
    assert not job.events("Connected")
