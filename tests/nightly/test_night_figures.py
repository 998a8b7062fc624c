"""A schedule's figures from the history: detection, a second measurement, status, the textfile."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.nightly.night_figures import (
    judge_figures,
    measures_again,
    night_series,
)
from orchestrator.adapters.nightly.night_notices import findings_notice
from orchestrator.adapters.nightly.schedule_store import (
    NightlyFolder,
    append_record,
    nightly_folder,
    read_changes,
    save_schedule,
)
from orchestrator.adapters.nightly.status_page import gather_status
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.suite.suite_folder import append_step, suite_folder
from orchestrator.cli.main import main
from orchestrator.core.detection.night_series import FigureFinding, FigureState
from orchestrator.core.nightly.nights import NightRecord, RecordKind
from orchestrator.core.suite.step_records import StepRecord, StepRecordKind
from tests.core.nightly.test_nights import schedule
from tests.history.made_runs import KEY, make_entry

NIGHTS = 60
TODAY = date(2026, 11, 30)


class Nights:
    """A schedule with nights in its log and runs in the history."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self.layout = Layout(home)
        self.folder: NightlyFolder = nightly_folder(self.layout, "jw3")
        save_schedule(self.folder, schedule(since=time.time()))
        self._source = random.Random(1)

    def add(self, ago: int, level: float = 100.0, suffix: str = "", **given: object) -> str:
        night = (TODAY - timedelta(days=ago)).isoformat()
        run_id = f"jw3-{night}{suffix}"
        speed = level * (1 + 0.01 * self._source.gauss(0, 1))
        key = replace(KEY, workload_version=f"v{night}", **given)  # type: ignore[arg-type]
        entry = make_entry(run_id, finished=1e9 - ago * 86400, key=key, speed=speed)
        commit = f"commit-{night}"
        entry = replace(entry, record=replace(entry.record, commit=commit))
        open_history(self.layout).record_run(entry)
        record = NightRecord(
            kind=RecordKind.FINISHED, night=night, at=0.0, run_id=run_id, status="succeeded"
        )
        append_record(self.folder, record)
        return night

    def judge(self, night: str, *, last: bool = True) -> FigureFinding:
        (finding,) = judge_figures(self.layout, self.folder, night, last=last)
        return finding


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    made = Nights(tmp_path / "home")
    for ago in range(NIGHTS, 4, -1):
        made.add(ago)
    return made


def test_a_regression_is_found_once_with_its_commits(nights: Nights) -> None:
    for ago in (4, 3, 2, 1):
        nights.add(ago, 92)
    tonight = nights.add(0, 92)

    finding = nights.judge(tonight)
    again = nights.judge(tonight)

    assert finding.state is FigureState.REGRESSION
    assert finding.suspects[0].good == f"commit-{TODAY - timedelta(days=5)}"
    assert finding.suspects[0].bad == f"commit-{TODAY - timedelta(days=4)}"
    assert [change.first_night for change in read_changes(nights.folder)] == [finding.first_bad]
    assert not again.new
    notice = findings_notice("jw3", tonight, [finding])
    assert notice is not None
    assert "commit-" in notice.text
    assert findings_notice("jw3", tonight, [again]) is None


def test_figures_of_a_suite_are_those_of_its_steps(nights: Nights) -> None:
    """Each under the name of its step, so that two steps of one workload do not mix."""
    night, suite = TODAY.isoformat(), suite_folder(nights.layout, "jw3-suite")
    suite.path.mkdir(parents=True)
    for step, level in (("cold", 50.0), ("warm", 70.0)):
        run_id = suite.step_run_id(step)
        open_history(nights.layout).record_run(make_entry(run_id, finished=1e9, speed=level))
        begun = StepRecord(kind=StepRecordKind.STARTED, step=step, at=1.0, run_id=run_id)
        append_step(suite, begun)
    record = NightRecord(kind=RecordKind.FINISHED, night=night, at=0.0, run_id="jw3-suite")
    found = {each.name: each for each in night_series(nights.layout, [record])}

    assert {name: each.nights[0].value for name, each in found.items()} == {
        "cold.speed": 50.0,
        "warm.speed": 70.0,
    }


def test_a_suspicious_figure_is_measured_again_and_both_count(nights: Nights) -> None:
    for ago in (4, 3, 2, 1):
        nights.add(ago)
    tonight = nights.add(0, 50)

    first = nights.judge(tonight, last=False)
    kept = nights.folder.findings.exists()
    nights.add(0, 100, "-2")
    second = nights.judge(tonight, last=True)

    assert measures_again([first])
    assert not kept
    assert second.value == pytest.approx(75, abs=2)  # neither the better nor the later one


def test_another_driver_begins_a_segment(nights: Nights) -> None:
    nights.add(1, 80, driver="600")
    finding = nights.judge(nights.add(0, 80, driver="600"))

    assert finding.state is FigureState.INSUFFICIENT_DATA
    assert "driver 580.1 -> 600" in finding.segment_why


def test_an_acknowledged_regression_is_shown_and_does_not_alarm(nights: Nights) -> None:
    for ago in (4, 3, 2, 1):
        nights.add(ago, 92)
    tonight = nights.add(0, 92)
    text = "- {series: speed, expires: 2026-12-24, reason: wanted}\n"
    nights.folder.acknowledged.write_text(text)

    finding = nights.judge(tonight)

    assert finding.state is FigureState.REGRESSION
    assert not finding.alarms
    page = gather_status(nights.layout, now=time.time())
    assert [trend.state for trend in page.trends] == ["regression, acknowledged"]
    assert page.alarms == ()


def test_status_shows_the_last_night_beside_the_last_good_one(
    nights: Nights, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ago in (4, 3, 2, 1):
        nights.add(ago, 92)
    nights.judge(nights.add(0, 92))
    files = {kind: tmp_path / f"status.{kind}" for kind in ("text", "markdown", "html", "json")}

    codes = [main(["status", "--format", k, "--out", str(f)]) for k, f in files.items()]

    texts = {kind: file.read_text() for kind, file in files.items()}
    assert codes == [1, 1, 1, 1]
    assert all("speed is regression" in text for text in texts.values())
    assert "| jw3 | speed | 2026-11-30 |" in texts["markdown"]
    assert texts["html"].startswith("<!doctype html>")
    data = json.loads(texts["json"])
    # The four bad nights before tonight are not what it is held against.
    assert (data["type"], data["figures"][0]["last_good"]) == ("status", "2026-11-25")
    assert texts["html"].count("<svg") == 1
    assert texts["html"].count('class="dot bad"') == 5
    assert all("▁" in texts[kind] for kind in ("text", "markdown"))
    assert capsys.readouterr().out == ""


def test_status_shows_a_missing_night_although_nothing_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    made = Nights(tmp_path / "home")
    save_schedule(made.folder, schedule(since=time.time() - 3 * 86400))

    code = main(["status"])

    assert code == 1
    out = capsys.readouterr().out
    assert "is missing: nothing had begun an hour after its time" in out


def test_a_damaged_schedule_is_a_trouble_and_hides_no_other(
    nights: Nights, capsys: pytest.CaptureFixture[str]
) -> None:
    other = nightly_folder(nights.layout, "other")
    save_schedule(other, schedule(name="other", since=time.time()))
    other.schedule.write_text("at: [")

    assert main(["status"]) == 1
    out = capsys.readouterr().out
    assert "schedule other" in out
    assert "jw3" in out
