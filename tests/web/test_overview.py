"""What is put together from many runs: nodes with their holders, and nights as a calendar."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.store.atomic_files import write_json
from orchestrator.adapters.store.journal import Journal
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.store.run_list import RunSummary, write_result
from orchestrator.adapters.suite.suite_folder import (
    SuiteOrder,
    append_step,
    create_suite_run,
    suite_folder,
)
from orchestrator.adapters.web.overview.calendar import WEEKS, night_tone, night_weeks
from orchestrator.adapters.web.overview.node_history import Holder, NodeHistory
from orchestrator.adapters.web.overview.suite_runs import list_suite_runs
from orchestrator.adapters.web.runs.run_index import RunIndex
from orchestrator.core.base.codec import to_json
from orchestrator.core.base.outcome import Signalled
from orchestrator.core.nightly.nights import Night, NightState
from orchestrator.core.run.events import Event, Probed, RankExited
from orchestrator.core.suite.step_records import StepRecord, StepRecordKind
from tests.cli.runs_on_disk import begin, events_of
from tests.core.world import World, facts, request
from tests.history.made_runs import make_entry

KILLED = RankExited(node="a", rank=0, outcome=Signalled(9), at=1.0, last_line="boom")


def run_on_disk(layout: Layout, run_id: str, at: float, *extra: Event, over: bool = True) -> None:
    """A run of nodes ``a`` and ``b`` with its journal, and its result if it is ``over``."""
    folder = begin(layout.home, run_id)
    events, result = events_of(*extra)
    with Journal(folder.journal) as journal:
        journal.append_many((at, to_json(event)) for event in events)
    if over:
        write_result(folder, replace(result, run_id=run_id))


def listed(layout: Layout) -> tuple[RunSummary, ...]:
    index = RunIndex(layout)
    index.refresh()
    return index.runs


def test_nodes_have_what_became_of_them_and_who_holds_them(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    run_on_disk(layout, "r1", 1.0, KILLED)
    run_on_disk(layout, "r2", 2.0)
    run_on_disk(layout, "r3", 3.0, over=False)
    plan = World(request("a", "b")).run().require_plan()
    held = replace(plan, nodes=(replace(plan.nodes[0], gpus=(0, 1, 3)),))
    write_json(layout.run("r3").path / "plan.json", to_json(held))
    rows = {row.name: row for row in NodeHistory(layout).rows(listed(layout))}

    assert list(rows) == ["a", "b"]
    assert rows["a"].holders == (Holder(run_id="r3", gpus="0-1,3"),)
    assert rows["b"].holders == ()
    states = {spot.run_id: spot.state for spot in rows["a"].spots}
    assert states == {"r1": "failed", "r2": "used"}
    assert [spot.tone for spot in rows["a"].spots if spot.run_id == "r1"] == ["bad"]
    assert any("disk" in finding for finding in rows["a"].findings), "the world's facts have none"


def test_gpus_are_those_of_the_latest_probe(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    folder = begin(layout.home, "r1")
    world = World(request("a", "b"))
    world.run()
    probed = [event for event, _ in world.log if isinstance(event, Probed)]
    with Journal(folder.journal) as journal:
        for event in probed:
            found = facts(event.node, gpus=8)
            journal.append(1.0, to_json(replace(event, facts=found)))
    rows = NodeHistory(layout).rows(listed(layout))

    assert [row.gpus for row in rows] == ["8 x NVIDIA H100 80GB HBM3"] * 2


def test_runs_whose_folders_are_gone_count(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    open_history(layout).record_run(make_entry("gone", 100.0))
    rows = NodeHistory(layout).rows(listed(layout))

    assert [(row.name, row.spots[0].run_id) for row in rows] == [("gpu01", "gone")]


def test_damaged_folders_cost_only_themselves(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    run_on_disk(layout, "r1", 1.0)
    broken = begin(layout.home, "r2")
    broken.journal.write_text("{}\n")
    broken.plan.write_text("[")

    assert [row.name for row in NodeHistory(layout).rows(listed(layout))] == ["a", "b"]


def test_a_suite_shows_its_latest_records(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    folder = suite_folder(layout, "s1")
    create_suite_run(folder, SuiteOrder(suite="nightly", source="-", cluster="c"), b"", {})
    for kind, step, at, status in (
        (StepRecordKind.STARTED, "train", 10.0, ""),
        (StepRecordKind.FINISHED, "train", 25.0, "failed"),
        (StepRecordKind.SKIPPED, "nvlink", 25.0, ""),
        (StepRecordKind.STARTED, "load", 26.0, ""),
    ):
        append_step(folder, StepRecord(kind=kind, step=step, at=at, run_id=step, status=status))
    (layout.suites / "s2").mkdir()
    (layout.suites / "s2" / "order.json").write_text("[]")
    (run,) = list_suite_runs(layout)

    assert (run.suite, run.state, run.tone) == ("nightly", "not finished", "live")
    assert [(s.name, s.state, s.tone, s.seconds) for s in run.steps] == [
        ("train", "failed", "bad", 15.0),
        ("nvlink", "skipped", "", None),
        ("load", "begun", "live", None),
    ]


@pytest.mark.parametrize(
    "state, late_s, tone",
    [
        (NightState.DONE, 0.0, "good"),
        (NightState.DONE, 3600.0, "odd"),
        (NightState.DEGRADED, 0.0, "odd"),
        (NightState.RUNNING, 0.0, "odd"),
        (NightState.FAILED, 3600.0, "bad"),
        (NightState.HALF_DONE, 0.0, "bad"),
        (NightState.MISSING, 0.0, "missing"),
    ],
)
def test_each_night_has_a_colour(state: NightState, late_s: float, tone: str) -> None:
    assert night_tone(Night(night="2026-11-30", due=0.0, state=state, late_s=late_s)) == tone


def test_a_calendar_has_whole_weeks_that_end_with_this_one() -> None:
    nights = [
        Night(night="2026-11-30", due=0.0, state=NightState.MISSING, reason="nothing began"),
        Night(night="2026-11-01", due=0.0, state=NightState.DONE, run_ids=("r1", "r2")),
        Night(night="2026-01-01", due=0.0, state=NightState.DONE),
    ]
    weeks = night_weeks(nights, date(2026, 12, 2))
    days = {day.day.isoformat(): day for week in weeks for day in week}

    assert [len(week) for week in weeks] == [7] * WEEKS
    assert (weeks[0][0].day.weekday(), weeks[-1][-1].day.isoformat()) == (0, "2026-12-06")
    assert (days["2026-11-30"].tone, days["2026-11-30"].label) == ("missing", "missing")
    assert (days["2026-11-01"].run_id, days["2026-11-01"].tone) == ("r2", "good")
    assert days["2026-11-02"].label == ""
    assert "2026-01-01" not in days
