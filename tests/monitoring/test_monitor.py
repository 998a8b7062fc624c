"""The metrics of a home: history, schedules, outputs of runs, and what cannot be read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.base.records import RequestRecord, to_line
from orchestrator.adapters.history.open_store import sqlite_history
from orchestrator.adapters.monitoring.monitor import Monitor
from orchestrator.adapters.nightly.schedule_store import (
    append_record,
    nightly_folder,
    save_schedule,
)
from orchestrator.adapters.store.latest_progress import ProgressFile, read_progress
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.store.run_list import read_result, write_result
from orchestrator.cli.main import main
from orchestrator.core.captures.outcome import CaptureResult, CaptureState
from orchestrator.core.nightly.nights import NightRecord, RecordKind
from orchestrator.core.nightly.schedule import Schedule
from orchestrator.core.run.kit_reports import Progressed
from orchestrator.core.run.state import new_state
from orchestrator.core.verdict.result import Status
from tests.cli.runs_on_disk import begin, finished
from tests.core.world import request
from tests.history.made_runs import make_entry

DAY_S = 86_400.0
NOON = 1_700_006_400.0 + 12 * 3600 - 1_700_006_400.0 % DAY_S  # of some day in UTC

Values = dict[tuple[str, ...], float]


def values(home: Path, now: float | None = None) -> dict[str, Values]:
    """Metric -> labels -> value."""
    at = home.stat().st_mtime if now is None else now
    found: dict[str, Values] = {}
    for sample in Monitor(Layout(home)).collect(at):
        found.setdefault(sample.metric.name, {})[sample.labels] = sample.value
    return found


def test_the_last_run_of_each_pair_and_its_trend(tmp_path: Path) -> None:
    store = sqlite_history(Layout(tmp_path).history)
    for number, (speed, step) in enumerate([(100, 2.0), (102, 2.0), (98, 2.0), (90, 2.5)]):
        store.record_run(make_entry(f"r{number}", 10.0 + number, speed=speed, step=step, fp8=1))
    store.record_run(make_entry("x", 5.0, cluster="d", status=Status.FAILED))
    found = values(tmp_path)

    last, pair = "orchestrate_last_run", ("c", "finetune")
    assert found[f"{last}_succeeded"] == {pair: 1, ("d", "finetune"): 0}
    assert found[f"{last}_finished_timestamp_seconds"][pair] == 13
    assert found[f"{last}_figure"][*pair, "speed", "tok/s"] == 90
    assert found[f"{last}_trend_ratio"] == {(*pair, "speed"): 0.9, (*pair, "step"): 0.8}
    assert found["orchestrate_runs"]["succeeded",] == 4
    assert found["orchestrate_runs"]["failed",] == 1


def test_two_earlier_runs_are_no_trend(tmp_path: Path) -> None:
    store = sqlite_history(Layout(tmp_path).history)
    for number in range(3):
        store.record_run(make_entry(f"r{number}", 10.0 + number, speed=100))

    assert "orchestrate_last_run_trend_ratio" not in values(tmp_path)


def plant_schedule(home: Path, *records: NightRecord, since: float) -> None:
    folder = nightly_folder(Layout(home), "s")
    at, zone = "0 2 * * *", "UTC"
    schedule = Schedule(name="s", cluster="local", workload="sleep", at=at, zone=zone, since=since)
    save_schedule(folder, schedule)
    for record in records:
        append_record(folder, record)


def state_of(found: dict[str, Values]) -> str:
    (state,) = (key[1] for key, value in found["orchestrate_nightly_state"].items() if value == 1)
    return state


def test_a_night_that_nothing_began_is_missing(tmp_path: Path) -> None:
    plant_schedule(tmp_path, since=NOON - 3 * DAY_S)
    found = values(tmp_path, NOON)

    assert state_of(found) == "missing"
    assert "orchestrate_nightly_finished_timestamp_seconds" not in found
    assert found["orchestrate_nightly_next_timestamp_seconds"]["s",] == NOON + 14 * 3600


def test_a_night_that_is_done_says_when(tmp_path: Path) -> None:
    night = "2023-11-15"
    began = NightRecord(kind=RecordKind.STARTED, night=night, at=NOON - 9 * 3600, run_id="r")
    ended = NightRecord(
        kind=RecordKind.FINISHED, night=night, at=NOON - 8 * 3600, run_id="r", status="succeeded"
    )
    plant_schedule(tmp_path, began, ended, since=NOON - DAY_S)
    found = values(tmp_path, NOON)

    assert state_of(found) == "done"
    assert found["orchestrate_nightly_finished_timestamp_seconds"]["s",] == NOON - 8 * 3600


def test_a_schedule_before_its_first_night_misses_nothing(tmp_path: Path) -> None:
    plant_schedule(tmp_path, since=NOON)

    assert "orchestrate_nightly_state" not in values(tmp_path, NOON + 60)


def test_a_run_that_is_seen_before_its_request_gets_its_names(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    request_text = folder.request.read_bytes()
    folder.request.unlink()
    monitor = Monitor(Layout(tmp_path))
    names: list[tuple[str, ...]] = []
    for _ in range(2):
        found = {sample.metric.name: sample for sample in monitor.collect(NOON)}
        names.append(found["orchestrate_run_info"].labels[1:4])
        folder.request.write_bytes(request_text)

    asked = json.loads(request_text)
    cluster, workload = asked["cluster"]["name"], asked["job"]["workload"]["name"]
    assert names == [("", "", ""), (cluster, workload, asked["launcher"])]


def write_requests(path: Path, *records: RequestRecord) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{to_line(record)}\n" for record in records) + '{"torn": ')


def test_requests_of_a_load_test_become_histograms(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    one = RequestRecord(
        index=0, scheduled_s=1.0, sent_s=1.0, chunks_s=[1.2, 1.3, 1.4], end_s=1.5, output_tokens=3
    )
    records = [one, replace(one, failure="timeout"), replace(one, failure="stopped")]
    write_requests(folder.node_artifacts("a") / "requests.jsonl", *records)
    write_requests(folder.node_artifacts("a", replaced=1) / "requests.jsonl", *records)
    samples = Monitor(Layout(tmp_path)).collect(folder.result.stat().st_mtime)

    found = {sample.metric.name: sample for sample in samples if sample.labels == ("r1",)}
    assert found["orchestrate_request_latency_seconds"].value == pytest.approx(0.5)
    assert sum(found["orchestrate_request_latency_seconds"].counts) == 1
    assert found["orchestrate_request_first_token_seconds"].value == pytest.approx(0.2)
    assert found["orchestrate_request_output_token_seconds"].value == pytest.approx(0.1)
    assert found["orchestrate_requests_failed_total"].value == 1


def test_experts_and_captures_of_a_run_that_ended(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    layers = [{"name": "model.layers.0", "counts": [3, 1]}, {"name": "b", "counts": [0, 4]}]
    telemetry = folder.node_artifacts("a") / "router_telemetry.json"
    telemetry.parent.mkdir()
    telemetry.write_text(json.dumps({"schema_version": 1, "layers": layers}))
    result = read_result(folder)
    assert result is not None
    capture = CaptureResult(
        kind="nvlink", state=CaptureState.CAPTURED, figures={"sent_bytes": 3.0e12}
    )
    write_result(folder, replace(result, captures=(capture,)))
    found = values(tmp_path, folder.result.stat().st_mtime)

    assert found["orchestrate_moe_load_gini_ratio"] == {
        ("r1", "model.layers.0"): 0.25,
        ("r1", "b"): 0.5,
    }
    assert found["orchestrate_moe_dead_experts_ratio"]["r1", "b"] == 0.5
    assert found["orchestrate_run_nvlink_payload_bytes_total"]["r1",] == 3.0e12


def test_a_run_has_series_for_an_hour_after_its_end(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    ended = folder.result.stat().st_mtime

    assert ("r1", "a") in values(tmp_path, ended + 3000)["orchestrate_node_up"]
    assert "orchestrate_node_up" not in values(tmp_path, ended + 3700)


def test_what_cannot_be_read_is_counted_and_holds_nothing_else_up(tmp_path: Path) -> None:
    finished(tmp_path)
    begin(tmp_path, "torn").journal.write_bytes(b"no journal\n")
    (tmp_path / "nightly" / "bad").mkdir(parents=True)
    (tmp_path / "nightly" / "bad" / "schedule.yaml").write_text("at: [")
    Layout(tmp_path).history.write_bytes(b"no database" * 100)
    found = values(tmp_path, tmp_path.stat().st_mtime)

    assert found["orchestrate_unreadable_sources"][()] == 3
    assert ("r1", "a") in found["orchestrate_node_up"]


def test_progress_is_written_at_most_once_a_second_and_of_the_present_attempt(
    tmp_path: Path,
) -> None:
    clock = [10.0]
    path = tmp_path / "progress.json"
    file = ProgressFile(path, lambda: clock[0])
    state = new_state(request("a", "b"))

    def report(rank: int, done: float, attempt: int = 1) -> None:
        event = Progressed(node="a", rank=rank, done=done, total=10, unit="step")
        file.on_event(5.0, event, replace(state, attempt=attempt))

    report(0, 1)
    report(1, 2)
    assert [p.rank for p in read_progress(path)] == [0]
    clock[0] += 1.5
    report(0, 3)
    assert {p.rank: p.done for p in read_progress(path)} == {0: 3, 1: 2}
    report(1, 0, attempt=2)
    file.write()
    assert {p.rank: p.ratio for p in read_progress(path)} == {1: 0}
    path.write_text("{")
    assert read_progress(path) == ()


def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    finished(tmp_path / "home")

    assert main(["monitor", "metrics"]) == 0
    printed = capfd.readouterr().out
    assert 'orchestrate_node_up{node="a",run="r1"} 1.0' in printed
    file = tmp_path / "o.prom"
    assert main(["monitor", "metrics", "--textfile", str(file)]) == 0
    assert "orchestrate_node_up" in file.read_text()
    assert main(["monitor", "metrics", "--textfile", str(tmp_path / "no" / "o.prom")]) == 2
    assert "name a file in a folder that exists" in capfd.readouterr().err


@pytest.mark.parametrize("target", ["x", 'a"\nrule_files: [b]:1', "a:1:2", "http://a:1", ""])
def test_a_target_that_is_none_is_refused(tmp_path: Path, target: str) -> None:
    assert main(["monitor", "export", str(tmp_path / "out"), "--target", target]) == 2
    assert not (tmp_path / "out").exists()


def test_experts_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    finished(tmp_path / "home")
    file = tmp_path / "telemetry.json"
    layers = [{"name": "0", "counts": [0, 6, 2]}]
    file.write_text(json.dumps({"schema_version": 1, "layers": layers}))

    assert main(["monitor", "experts", str(file), "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert (line["type"], line["layer"], line["tokens"]) == ("layer", "0", 8)
    assert (line["busiest"], line["idlest"]) == ([1, 2, 0], [0, 2, 1])
    assert main(["monitor", "experts", str(file)]) == 0
    assert "max/mean" in capsys.readouterr().out
    assert main(["monitor", "experts", "r1"]) == 2
    assert "run r1 has no router_telemetry.json" in capsys.readouterr().err
    assert main(["monitor", "experts", str(tmp_path / "missing.pt")]) == 2
