"""Divisible work on this machine: every sample once, whoever dies, and resumed where it stood."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.parsing.replies.sample_records import sample_line
from tests.cli.local_desk import open_local_desk
from tests.hosts.dividing import (
    SQUARES,
    check_complete,
    merged,
    records,
    squares,
    wait_for_outputs,
)
from tests.hosts.processes import Here, kill_rank
from tests.hosts.running import Desk, Job

pytestmark = pytest.mark.processes

NODES = ("n1", "n2", "n3")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Three nodes that are this machine."""
    with open_local_desk(tmp_path, 3) as desk:
        yield desk


def done_by(desk: Desk, job: Job, node: str) -> list[int]:
    return [record["sample"] for record in records(desk, job.run, "output", node)]


def said(job: Job, words: str) -> bool:
    return any(words in note["text"] for note in job.events("Note"))


def test_unequal_workers_do_every_sample_once(desk: Desk) -> None:
    """One is slow, one joins late; each does what it can, the outputs are exact and in order, the
    workers end by themselves, and the figures are there.
    """
    settings = ("samples=60", "batch=2", "pause=0.03", "slow=n2=2.7", "late=n3=0.5")
    job = desk.start_workload(SQUARES, *settings)
    ending = job.end()

    check_complete(desk, job, ending, 60, "succeeded")
    assert ending.result["samples"]["duplicates"] == 0
    counts = [len(done_by(desk, job, node)) for node in NODES]
    assert sum(counts) == 60
    assert min(counts) > 0
    assert counts[0] > counts[1]
    ends = [e["outcome"] for e in job.events("RankExited")]
    assert len(ends) == 3
    assert not [e for e in job.events("RankExited") if e["by_us"]]
    figures = ending.result["metrics"]
    assert figures["digits_per_s"]["value"] > figures["samples_per_s"]["value"] > 0
    assert figures["samples_per_s.n1"]["value"] > figures["samples_per_s.n2"]["value"]
    assert 0 < figures["division_efficiency"]["value"] <= 1.05
    assert figures["latency_p99"]["value"] == pytest.approx(0.081, abs=0.001)
    assert [e["done"] for e in job.events("Divided", final=True)] == [60]


def test_workers_that_die_or_stand_still_cost_no_sample(desk: Desk) -> None:
    """Their groups are done by the one that is left, and the run says that it was degraded."""
    job = desk.start_workload(SQUARES, "samples=60", "pause=0.1")
    wait_for_outputs(desk, job, 5, "n2")
    wait_for_outputs(desk, job, 5, "n3")
    kill_rank(Here(), "here", job.run, 1, signal.SIGKILL)
    kill_rank(Here(), "here", job.run, 2, signal.SIGSTOP)
    ending = job.end()

    check_complete(desk, job, ending, 60, "degraded")
    assert ending.states == {"n1": "used", "n2": "failed", "n3": "stopped"}
    assert said(job, "n3: rank 2 still running after its samples were completed elsewhere")


def test_a_degraded_run_fails_where_that_is_asked_for(desk: Desk) -> None:
    """Complete, and exit code 3; who comes to it later gets the same."""
    options = ("--fail-on", "degraded")
    job = desk.start_workload(SQUARES, "samples=30", "pause=0.04", options=options)
    wait_for_outputs(desk, job, 2, "n2")
    kill_rank(Here(), "here", job.run, 1, signal.SIGKILL)
    ending = job.end()

    assert (ending.code, ending.result["status"]) == (3, "degraded"), job.err
    assert ending.result["samples"]["done"] == 30
    assert merged(desk, job.run) == squares(30)
    for command in ("attach", "resume"):
        assert desk.command(command, job.run).returncode == 3


def test_resume_does_only_what_is_missing(desk: Desk) -> None:
    """All workers die: incomplete, with what to type; another attempt does the rest. What a rank of
    another configuration says does not count, and a changed data set is refused.
    """
    data = desk.project / "numbers.jsonl"
    data.write_text("".join(f"{number}\n" for number in range(60)))
    settings = ("dataset=numbers.jsonl", "samples=0", "batch=1", "pause=0.04")
    job = desk.start_workload(SQUARES, *settings)
    wait_for_outputs(desk, job, 20)
    for rank in range(3):
        kill_rank(Here(), "here", job.run, rank, signal.SIGKILL)
    ending = job.end()
    assert (ending.code, ending.result["failure"]["id"]) == (75, "OR-WORK-001"), job.err
    assert f"orchestrate resume {job.run}" in ending.result["failure"]["remedy"]
    first = ending.result["samples"]["done"]
    assert 20 <= first < 60
    assert merged(desk, job.run) is None

    stranger = desk.folder(job.run) / "exchange" / "n9" / "attempt-1" / "exchange-8.jsonl"
    stranger.parent.mkdir(parents=True)
    told = next(records(desk, job.run, "output"))
    ready = {"type": "worker", "configuration": "of something else"}
    output = {**told, "output": {"square": -1}}
    stranger.write_text("".join(json.dumps(each) + "\n" for each in (ready, output)))
    data.write_text("7\n" * 60)
    refused = desk.command("resume", job.run)
    assert refused.returncode == 2
    assert "samples" in refused.stderr
    data.write_text("".join(f"{number}\n" for number in range(60)))
    again = desk.resume(job.run)
    ending = again.end()

    check_complete(desk, again, ending, 60, "succeeded")
    assert ending.result["samples"]["duplicates"] == 0
    assert len(list(records(desk, job.run, "output"))) == 60 + 1  # the stranger's
    assert said(again, "other code, arguments or samples")


def test_outputs_that_differ_are_flagged(desk: Desk, tmp_path: Path) -> None:
    """A worker that answers a sample again, and differently: no merge, no average, exit 1."""
    job = desk.start_workload(SQUARES, "samples=20", "pause=0.1")
    wait_for_outputs(desk, job, 2)
    told = next(records(desk, job.run, "output"))
    index, square = told["sample"], told["output"]["square"] + 1
    digest = hashlib.sha256(sample_line(index, {"square": square})).hexdigest()
    wrong = {**told, "output": {"square": square}, "sha256": digest}
    path = tmp_path / "node" / "node" / "runs" / job.run / "n2" / "attempt-1" / "exchange"
    with (path / "exchange-1.jsonl").open("a") as file:
        file.write(json.dumps(wrong) + "\n")
    ending = job.end()

    assert (ending.code, ending.result["failure"]["id"]) == (1, "OR-WORK-002")
    assert (ending.result["samples"]["done"], ending.result["samples"]["duplicates"]) == (20, 1)
    assert merged(desk, job.run) is None
    assert said(job, f"output of sample {index} differs from the first")


def test_a_sample_that_cannot_be_done_leaves_the_others(desk: Desk) -> None:
    """All others are done, and the run failed; there are no merged outputs with a hole."""
    job = desk.start_workload(SQUARES, "samples=20", "refuse=7")
    ending = job.end()

    assert (ending.code, ending.result["failure"]["id"]) == (1, "OR-WORK-003"), job.err
    samples = ending.result["samples"]
    assert (samples["done"], samples["failed"]) == (19, 1)
    assert merged(desk, job.run) is None
    assert said(job, "sample 7 failed: it was to be refused")


def test_a_worker_with_another_model_takes_no_part(desk: Desk) -> None:
    """It ends with the reason, nothing of it counts, and the others do the work: degraded."""
    settings = ("samples=20", "models=n1=llama,n2=qwen,n3=llama", "late=n2=0.4", "pause=0.05")
    job = desk.start_workload(SQUARES, *settings)
    ending = job.end()

    check_complete(desk, job, ending, 20, "degraded")
    assert ending.states["n2"] == "failed"
    assert not done_by(desk, job, "n2")
    assert said(job, "its model or what else decides outputs is qwen, that of n")
    written = [line for file, lines in job.lines().items() if "n2/" in file for line in lines]
    assert "RuntimeError: this worker takes no part: its model" in written[-1]


def test_another_coordinator_goes_on(desk: Desk) -> None:
    """After a SIGKILL of the first the same workers go on, and no sample is lost or done twice."""
    job = desk.start_workload(SQUARES, "samples=60", "pause=0.08")
    wait_for_outputs(desk, job, 15)
    job.abandon()
    again = desk.resume(job.run)
    ending = again.end()

    check_complete(desk, again, ending, 60, "succeeded")
    assert ending.result["samples"]["duplicates"] == 0
    assert {path.name for path in (desk.folder(job.run) / "exchange").glob("*/*")} == {"attempt-1"}


def test_a_bad_line_is_named_before_anything_is_contacted(desk: Desk) -> None:
    """Exit 2 with file and line."""
    data = desk.project / "numbers.jsonl"
    data.write_text("1\n2\n{no\n4\n")
    words = ("run", "--cluster", str(desk.cluster), "--workload", str(SQUARES))
    done = desk.command(*words, "--set", "dataset=numbers.jsonl", "--set", "samples=0")

    assert done.returncode == 2
    assert f"{data}:3" in done.stderr
    assert "not JSON" in done.stderr
    assert not list((desk.home / "runs").glob("*"))
