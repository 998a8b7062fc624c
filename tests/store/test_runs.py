"""Runs on disk: names, look-up, liveness, results, series."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.adapters.report.result_json import parse_object, to_object
from orchestrator.adapters.store import liveness as live
from orchestrator.adapters.store.atomic_files import write_atomic
from orchestrator.adapters.store.layout import Layout, valid_run_id
from orchestrator.adapters.store.metric_series import Point, SeriesWriter, read_series
from orchestrator.adapters.store.run_list import (
    find_run,
    list_runs,
    new_run_id,
    read_result,
    summarise,
    write_result,
)
from orchestrator.core.base.errors import ExitCode, InternalError, UsageError
from orchestrator.core.verdict.result import (
    FailureResult,
    MetricResult,
    NodeResult,
    Result,
    RungResult,
    Samples,
    Status,
    Verdict,
)
from tests.time_limits import communicate, wait_for_exit

RESULT = Result(
    run_id="r1",
    status=Status.FAILED,
    exit_code=ExitCode.RUN_FAILED,
    cluster="c",
    workload="w",
    launcher="torchrun",
    world_size=2,
    ladder=(RungResult(rung="gloo", outcome="used", reason="no GPUs", seconds=None),),
    nodes=(NodeResult(name="n1", state="failed", reason="rank 0 died"),),
    metrics={"type": MetricResult(value=1.5, unit="s", verdict=Verdict.FAIL, max=1.0)},
    samples=Samples(total=3, done=2, failed=1, duplicates=0),
    timings={"connect": 0.5, "watch": 2.0},
    failure=FailureResult(id="X", cause="c", node="n1", rank=0, others=("n1/rank 1",)),
    warnings=("odd",),
    report="/r/report.html",
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "home")


def test_home_comes_from_the_environment(tmp_path: Path) -> None:
    """ORCHESTRATE_HOME wins; empty counts as unset."""
    assert Layout.from_environment({"ORCHESTRATE_HOME": str(tmp_path)}).home == tmp_path
    default = Path.home() / ".orchestrate"
    assert Layout.from_environment({"ORCHESTRATE_HOME": ""}).home == default


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\0b", "x" * 129, "-x", ".x"])
def test_unsafe_names_never_become_paths(layout: Layout, name: str) -> None:
    """A run id or file name that could leave its folder is refused."""
    with pytest.raises(ValueError, match="not a run id"):
        layout.run(name)
    if "/" in name or "\0" in name or name in {"", ".", ".."}:
        with pytest.raises(ValueError, match="not a file name"):
            layout.run("ok").log(name, "rank-0.out")


def test_a_new_run_is_private_and_unique(layout: Layout) -> None:
    """The home and the run are for their owner only, and a run is created once."""
    folder = layout.run("r1")
    folder.create()
    assert [p.stat().st_mode & 0o777 for p in (layout.home, layout.runs, folder.path)] == [
        0o700
    ] * 3
    with pytest.raises(FileExistsError):
        folder.create()


def test_run_ids_are_readable_sortable_and_valid() -> None:
    """Clock and randomness come from outside; any workload name gives a valid id."""
    now = datetime(2026, 11, 21, 19, 30, 5, tzinfo=UTC)
    made = new_run_id(now, "finetune", random.Random(7))
    assert made == new_run_id(now, "finetune", random.Random(7))
    assert made.startswith("20261121-193005-finetune-")
    for name in ["", "Ünï/code ../..", "x" * 500]:
        assert valid_run_id(new_run_id(now, name, random.Random(1)))


def test_find_run_by_prefix_and_last(layout: Layout) -> None:
    """An unambiguous beginning or ``last`` is enough; everything else names what exists."""
    for at, run_id in [(20.0, "20260101-a"), (30.0, "20260102-b"), (10.0, "zzz")]:
        layout.run(run_id).create()
        identity = replace(live.identify_self(at), started="0")
        live.write_identity(layout.run(run_id).coordinator, identity)
    assert find_run(layout, "zzz").run_id == "zzz"
    assert find_run(layout, "20260102").run_id == "20260102-b"
    assert find_run(layout, "last").run_id == "20260102-b"
    with pytest.raises(UsageError, match="2 runs begin"):
        find_run(layout, "2026")
    with pytest.raises(UsageError, match="no run is called") as caught:
        find_run(layout, "../zzz")
    assert "orchestrate ps" in caught.value.remedy
    with pytest.raises(UsageError, match="no run is called") as caught:
        find_run(layout, "another")
    assert "the newest runs: 20260102-b, 20260101-a, zzz" in caught.value.remedy


def test_find_run_without_runs(layout: Layout) -> None:
    """An empty home is an error of usage, not a crash."""
    with pytest.raises(UsageError, match="no runs yet"):
        find_run(layout, "last")


def test_write_atomic_replaces_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure before the rename leaves the old content and no temporary file."""
    path = tmp_path / "f"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match="no"):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.processes
def test_liveness_follows_the_process_not_the_pid() -> None:
    """Alive while it runs; dead when ended, when the pid has another start time, after a reboot."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        me = live.identify_self(0.0)
        started = live._start_time(child.pid)
        assert started is not None
        identity = replace(me, pid=child.pid, started=started)
        assert live.liveness(identity) is live.Liveness.ALIVE
        assert live.liveness(replace(identity, started="1")) is live.Liveness.DEAD
        assert live.liveness(replace(identity, boot="other")) is live.Liveness.DEAD
        elsewhere = replace(identity, boot="other", host="elsewhere")
        assert live.liveness(elsewhere) is live.Liveness.ELSEWHERE
        with live.signalling(replace(identity, started="1")) as send:
            assert not send(signal.SIGKILL)
        assert child.poll() is None
        with live.signalling(identity) as send:
            assert send(signal.SIGTERM)
            assert wait_for_exit(child, 10) == -signal.SIGTERM
            assert not send(signal.SIGTERM)
        assert live.liveness(identity) is live.Liveness.DEAD
    finally:
        child.kill()
        communicate(child, 10)


def test_an_unreadable_identity_is_none(tmp_path: Path) -> None:
    """Garbage in coordinator.json is no process."""
    path = tmp_path / "coordinator.json"
    for content in [b"", b"[]", b'{"pid": 1}', b"\xff"]:
        path.write_bytes(content)
        assert live.read_identity(path) is None
    assert live.liveness(None) is live.Liveness.DEAD


def test_result_round_trip(layout: Layout) -> None:
    """What is written is read back; the object has exactly the promised keys."""
    folder = layout.run("r1")
    folder.create()
    assert read_result(folder) is None
    write_result(folder, RESULT)
    assert read_result(folder) == RESULT
    keys = (
        "schema_version run_id status exit_code cluster workload launcher ladder nodes "
        "world_size metrics outputs samples energy cost timings failure warnings report "
        "predictions notice begins_anew captures"
    )
    assert " ".join(to_object(RESULT)) == keys


def test_result_refuses_what_it_does_not_know() -> None:
    """A newer schema and a damaged object are errors; NaN is null."""
    with pytest.raises(UsageError, match="schema version 2"):
        parse_object({**to_object(RESULT), "schema_version": 2}, where="x")
    with pytest.raises(InternalError):
        parse_object({"schema_version": 1}, where="x")
    invalid = MetricResult(value=float("nan"), unit="s", verdict=Verdict.INVALID)
    assert to_object(replace(RESULT, metrics={"m": invalid}))["metrics"]["m"]["value"] is None


def test_listing_tells_running_from_interrupted(layout: Layout) -> None:
    """A run without result is running while its coordinator lives, and unattended after."""
    folder = layout.run("r1")
    folder.create()
    assert summarise(folder).state == "unattended"
    live.write_identity(folder.coordinator, live.identify_self(5.0))
    folder.request.write_text('{"cluster": {"name": "c"}, "job": {"workload": {"name": "w"}}}')
    summary = summarise(folder)
    assert (summary.state, summary.cluster, summary.workload) == ("running", "c", "w")
    write_result(folder, RESULT)
    (listed,) = list_runs(layout, limit=5)
    assert (listed.state, listed.seconds, listed.started) == ("failed", 2.5, 5.0)


def test_series_survive_torn_and_repeated_lines(tmp_path: Path) -> None:
    """By rank, steps ascend; torn lines are left out; of a repeated step the last counts."""
    path = tmp_path / "metrics.jsonl"
    writer = SeriesWriter(path)

    def report(rank: int, step: int | None, value: float) -> None:
        writer.append_many([Point("n", rank, "loss", value, "nats", step, 1.0)])

    for step, value in [(2, 3.0), (1, 4.0), (2, 2.5)]:
        report(0, step, value)
    report(1, 1, 5.0)
    report(0, None, 2.5)
    writer.close()
    with path.open("a") as file:
        file.write('[1]\n{"node": "n", "rank": "x"}\n{"node": "n", "ra')
    assert [(s.rank, s.points) for s in read_series(path)] == [
        (0, ((1, 4.0), (2, 2.5))),
        (1, ((1, 5.0),)),
    ]
    assert read_series(tmp_path / "missing") == ()
