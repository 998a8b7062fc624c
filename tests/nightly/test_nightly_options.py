"""What ``orchestrate nightly add`` refuses before anything is written."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from orchestrator.cli.main import main

ADD = ["nightly", "add", "n1", "--cluster", "local", "--workload", "sleep", "--at", "19:00"]


def test_a_suite_has_no_parameters_and_must_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path))
    add = [*ADD[: ADD.index("--workload")], "--at", "19:00", "--tz", "UTC"]
    for words, said in (
        (["--suite", "smoke", "--set", "lines=1"], "--set is for workloads"),
        (["--suite", "smokee"], "did you mean 'smoke'?"),
        ([], "give --workload W or --suite S"),
    ):
        assert main([*add, *words]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "nightly" / "n1").exists()


@pytest.mark.parametrize(
    "words,said",
    [
        (["--suite", "smoke"], "a schedule runs a workload or a suite"),
        (["--jitter", "nan"], "not a finite number"),
        (["--limit", "inf"], "Invalid value"),
        (["--catch-up", "nan"], "not a finite number"),
        (["--env", "TOKEN"], "no value in 'TOKEN'"),
        (["--status", "live_status.doc"], "does not say its format"),
        (["--status-every", "0"], "Invalid value"),
    ],
)
def test_bad_values_leave_no_schedule(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path))
    assert main([*ADD, "--tz", "UTC", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "nightly" / "n1").exists()


@pytest.mark.processes  # whether the crontab has it is shown, too
@pytest.mark.parametrize("zone", ["Asia/Seoul", "Europe/Berlin"])
def test_a_year_of_nights_is_right_over_both_clock_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], zone: str
) -> None:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path))
    assert main([*ADD, "--tz", zone]) == 0
    capsys.readouterr()

    assert main(["nightly", "show", "n1", "--next", "400", "--json"]) == 0

    shown = json.loads(capsys.readouterr().out)["next"]
    due = [datetime.fromtimestamp(night["due"], ZoneInfo(zone)) for night in shown]
    assert {(each.hour, each.minute) for each in due} == {(19, 0)}
    assert [night["night"] for night in shown] == [each.date().isoformat() for each in due]
    assert {later.date() - earlier.date() for earlier, later in pairwise(due)} == {
        timedelta(days=1)
    }


@pytest.mark.processes  # as above
def test_a_schedule_is_shown_with_the_day_since_when_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """People read no seconds since 1970."""
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path))
    assert main([*ADD, "--tz", "Asia/Seoul"]) == 0
    capsys.readouterr()

    assert main(["nightly", "show", "n1"]) == 0

    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("since: ")]
    clock = datetime.fromisoformat(line.split(maxsplit=2)[2].removesuffix(" (Asia/Seoul)"))
    passed = datetime.now(UTC) - clock.replace(tzinfo=ZoneInfo("Asia/Seoul"))
    assert timedelta(0) <= passed < timedelta(hours=1)
