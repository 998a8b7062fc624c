"""What scripts report through the kit, read by the same parser that the coordinator uses."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import orchestrate_kit as kit
from orchestrate_kit import _reports, _samples
from orchestrator.core.run.kit_reports import Progressed, Reported
from orchestrator.parsing.replies.kit_records import parse_report
from tests.time_limits import scaled


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if started by hand in an empty folder."""
    for name in ("RANK", "WORLD_SIZE", "ORCHESTRATE_REPORT_DIR", "ORCHESTRATE_OUTPUT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_samples, "_at_work", [])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file that rank 3 reports to."""
    monkeypatch.setenv("ORCHESTRATE_REPORT_DIR", str(tmp_path))
    monkeypatch.setenv("ORCHESTRATE_OUTPUT_DIR", str(tmp_path / "out"))
    monkeypatch.setenv("RANK", "3")
    return tmp_path / "rank-3.jsonl"


def test_a_metric_arrives_as_it_was_reported(reports: Path) -> None:
    """Name, value, unit and step survive the way to the coordinator."""
    kit.metric("loss", 0.25, "nats", step=7)

    found = parse_report("node", 3, reports.read_bytes(), 0)
    assert found == Reported(node="node", rank=3, name="loss", value=0.25, unit="nats", step=7)


def test_progress_arrives_with_its_fields(reports: Path) -> None:
    """Numbers and texts beside the progress are kept."""
    kit.progress(2, 8, "step", loss=1.5, phase="train")

    found = parse_report("node", 3, reports.read_bytes(), 0)
    assert isinstance(found, Progressed)
    assert (found.done, found.total, found.fields) == (2, 8, {"loss": 1.5, "phase": "train"})


@pytest.mark.parametrize(
    "value",
    [
        np.float32(0.25),
        np.array([0.25]),
        torch.tensor(0.25, requires_grad=True),
        Decimal("0.25"),
    ],
)
@pytest.mark.parametrize("step", [np.int64(7), torch.tensor(7), np.array(7)])
def test_scalars_of_other_libraries_are_numbers(reports: Path, value: Any, step: Any) -> None:
    """A loss comes as a tensor, a step from an array; what is not one number is refused."""
    kit.metric("loss", value, "nats", step=step)
    kit.progress(step, value, loss=value)

    found = parse_report("node", 3, reports.read_bytes().splitlines(keepends=True)[0], 0)
    assert found == Reported(node="node", rank=3, name="loss", value=0.25, unit="nats", step=7)
    for many in (np.zeros(2), torch.zeros(2)):
        with pytest.raises(ValueError, match="loss is not one number"):
            kit.metric("loss", many)
    with pytest.raises(ValueError, match="whole number"):
        kit.metric("loss", 1.0, step=np.float64(2.0))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_does_not_end_the_job(
    reports: Path, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN and infinity are left out and named once; what stands beside them is reported."""
    _reports._warned.clear()
    for step in range(3):
        kit.metric("speed", value, step=step)
    assert not reports.exists()
    kit.progress(1, 2, rate=value, phase="train")
    kit.progress(value, 2)

    (line,) = reports.read_bytes().splitlines()
    found = parse_report("node", 3, line, 0)
    assert isinstance(found, Progressed)
    assert found.fields == {"phase": "train"}
    said = capsys.readouterr().err.splitlines()
    assert [text.split()[1] for text in said] == ["speed", "rate", "done"]


@pytest.mark.parametrize("name", ["", "x" * 129, "two\nlines", 5])
def test_a_bad_name_is_refused(reports: Path, name: str) -> None:
    """Names are short, printable texts."""
    with pytest.raises(ValueError, match="not a name"):
        kit.metric(name, 1)

    assert not reports.exists()


@pytest.mark.parametrize("step", [1.5, True, "3"])
def test_a_step_is_a_whole_number(reports: Path, step: int) -> None:
    """Anything else is refused before it is written."""
    with pytest.raises(ValueError, match="whole number"):
        kit.metric("loss", 1, step=step)


def test_a_record_that_is_too_long_is_refused(reports: Path) -> None:
    """The coordinator would drop it; the script learns of it instead."""
    with pytest.raises(ValueError, match="at most 65536"):
        kit.progress(1, 2, note="x" * 70_000)

    assert not reports.exists()


def test_lines_of_many_threads_never_mix(reports: Path) -> None:
    """Each record is appended whole, whoever else writes at the same time."""

    def report(thread: int) -> None:
        for step in range(200):
            kit.progress(step, 200, thread=thread, filler="x" * 500)

    threads = [threading.Thread(target=report, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=scaled(60))

    lines = reports.read_bytes().splitlines()
    assert len(lines) == 800
    assert all(isinstance(parse_report("node", 3, line, 0), Progressed) for line in lines)


def test_an_artifact_is_announced_with_its_digest(reports: Path) -> None:
    """Path relative to the output folder, size and SHA-256 of the content."""
    path = kit.output_dir() / "model" / "weights.bin"
    path.parent.mkdir()
    path.write_bytes(b"weights")
    kit.artifact(path)

    record = json.loads(reports.read_bytes())
    assert record["path"] == "model/weights.bin"
    assert (record["bytes"], record["sha256"]) == (7, hashlib.sha256(b"weights").hexdigest())


def test_an_artifact_outside_the_output_folder_is_refused(reports: Path, tmp_path: Path) -> None:
    """It would not be collected."""
    stray = tmp_path / "stray.txt"
    stray.write_text("x")
    with pytest.raises(ValueError, match="is not below"):
        kit.artifact(stray)


def test_facts_are_what_the_coordinator_handed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is known without a coordinator, or where its file cannot be read; that is said."""
    monkeypatch.delenv("ORCHESTRATE_FACTS", raising=False)
    assert kit.facts() == {}
    path = tmp_path / "facts.json"
    monkeypatch.setenv("ORCHESTRATE_FACTS", str(path))
    assert kit.facts() == {}
    path.write_text("{broken")
    assert kit.facts() == {}
    assert capsys.readouterr().err.count("no facts of this node") == 2
    path.write_text('{"gpus": []}')
    assert kit.facts() == {"gpus": []}


def test_without_orchestrate_rank_zero_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Under plain python the same calls give readable lines, from one rank only."""
    kit.metric("loss", 0.5, "nats")
    kit.progress(1, 4, "step", loss=0.5)
    monkeypatch.setenv("RANK", "1")
    kit.metric("loss", 0.75)

    assert capsys.readouterr().out == "loss = 0.5 nats\nstep 1/4 loss=0.5\n"
    assert kit.output_dir().resolve() == tmp_path / "output"
    assert kit.checkpoint_dir().resolve() == tmp_path / "checkpoints"


@pytest.mark.parametrize(
    "device,gpus,chosen",
    [("cpu", 8, "cpu"), ("auto", 0, "cpu"), ("auto", 8, "cuda:2"), ("cuda", 3, "cuda:2")],
)
def test_each_local_rank_has_a_gpu_of_its_own_or_the_cpu(
    device: str, gpus: int, chosen: str
) -> None:
    """Three workloads choose by this one rule."""
    assert kit.device_of_rank(device, 2, gpus) == chosen


@pytest.mark.parametrize("device,gpus", [("auto", 2), ("cuda", 0)])
def test_a_rank_without_a_gpu_says_so(device: str, gpus: int) -> None:
    """Rather than share one, or compute on a CPU that nobody asked for."""
    with pytest.raises(RuntimeError, match=f"local rank 2 has no GPU: {gpus} visible"):
        kit.device_of_rank(device, 2, gpus)
