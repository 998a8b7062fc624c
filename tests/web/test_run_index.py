"""The list of runs: from folders and the history, live and past, filtered and in pages."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.store.liveness import identify_self, write_identity
from orchestrator.adapters.store.run_list import write_result
from orchestrator.adapters.web.runs.run_index import PAGE_RUNS, RunFilter, RunIndex
from orchestrator.core.verdict.result import Status
from tests.cli.runs_on_disk import begin, events_of, finished
from tests.history.made_runs import KEY, make_entry


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "home")


def states(index: RunIndex) -> dict[str, str]:
    index.refresh()
    return {run.run_id: run.state for run in index.runs}


def test_runs_of_folders_and_of_the_history_are_one_list(layout: Layout) -> None:
    finished(layout.home)
    begin(layout.home, "r2")
    open_history(layout).record_run(make_entry("gone", 100.0))
    index = RunIndex(layout)

    assert states(index) == {"r1": "succeeded", "r2": "running", "gone": "succeeded"}
    assert [run.run_id for run in index.live] == ["r2"]
    assert [run.cleaned for run in index.runs if run.run_id == "gone"] == [True]


def test_changes_are_seen(layout: Layout) -> None:
    index = RunIndex(layout)
    assert states(index) == {}
    folder = begin(layout.home, "r2")
    assert states(index) == {"r2": "running"}

    _, result = events_of()
    write_result(folder, replace(result, run_id="r2", status=Status.DEGRADED))
    assert states(index) == {"r2": "degraded"}
    assert not index.refresh()

    shutil.rmtree(folder.path)
    assert states(index) == {}


def test_a_dead_coordinator_is_seen_without_any_file_that_changes(layout: Layout) -> None:
    folder = begin(layout.home)
    index = RunIndex(layout)
    assert states(index) == {"r1": "running"}

    dead = replace(identify_self(5.0), started="0")
    stat = folder.path.stat()
    write_identity(folder.coordinator, dead)
    os.utime(folder.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert states(index) == {"r1": "unattended"}


def test_a_run_that_is_resumed_after_its_end_is_live(layout: Layout) -> None:
    folder = begin(layout.home, "r1")
    open_history(layout).record_run(make_entry("r1", 100.0))

    assert states(RunIndex(layout)) == {"r1": "running"}
    os.utime(folder.path, (90.0, 90.0))
    assert states(RunIndex(layout)) == {"r1": "succeeded"}


def test_what_cannot_be_read_is_a_run_or_a_trouble(layout: Layout) -> None:
    broken = begin(layout.home, "broken")
    broken.result.write_bytes(b"\xff")
    layout.history.write_bytes(b"no database")
    index = RunIndex(layout)

    assert states(index) == {"broken": "unreadable"}
    assert "history not read" in index.trouble


def test_pages_and_filters(layout: Layout) -> None:
    store = open_history(layout)
    for number in range(PAGE_RUNS + 10):
        key = replace(KEY, workload=f"w{number % 2}")
        store.record_run(make_entry(f"run-{number:03}", 100.0 + number, key=key))
    index = RunIndex(layout)
    index.refresh()
    first, last = index.page(RunFilter(), 0), index.page(RunFilter(), 999)

    assert (len(first.runs), first.number, first.pages) == (PAGE_RUNS, 1, 2)
    assert (len(last.runs), last.number, last.total) == (10, 2, PAGE_RUNS + 10)
    assert first.runs[0].run_id == f"run-{PAGE_RUNS + 9:03}"
    assert index.page(RunFilter(workload="w1"), 1).total == PAGE_RUNS // 2 + 5
    assert index.page(RunFilter(text="RUN-007"), 1).total == 1
    assert index.page(RunFilter(state="failed"), 1).total == 0
    assert index.choices("workload") == ["w0", "w1"]
