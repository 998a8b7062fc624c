"""``orchestrate nightly`` with real runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.adapters.history.open_store import sqlite_history
from orchestrator.adapters.nightly.schedule_store import (
    NightlyFolder,
    append_record,
    find_schedule,
    save_schedule,
    working_on,
)
from orchestrator.cli.main import main
from orchestrator.cli.nights import run_night
from orchestrator.cli.nights.run_night import NightShift
from orchestrator.cli.nights.status_file import StatusFile
from orchestrator.core.history.run_record import RunQuery
from orchestrator.core.nightly.nights import NightRecord, RecordKind
from tests.nightly.crontabs import PrivateCron, needs_cron
from tests.nightly.night_desk import Desk, minutes_ago
from tests.time_limits import scaled

pytestmark = pytest.mark.processes


def test_the_night_that_is_due_runs_once(desk: Desk) -> None:
    desk.add(at=minutes_ago(2))
    desk.made_since(timedelta(hours=1))

    desk.run("tick", "jw3")
    desk.run("tick", "jw3")

    (night,) = desk.nights()
    assert night["state"] == "done"
    assert night["alarms"] is False
    assert desk.kinds() == ["started", "finished"]


def test_a_night_may_be_a_suite(desk: Desk) -> None:
    """Its status is the suite's; what failed in it is the night's reason."""
    (desk.root / "suites").mkdir()
    steps = "[{name: a, workload: sleep, parameters: {lines: 2}}, "
    steps += "{name: b, workload: sleep, requires: {tools: [no-such-tool]}}]"
    (desk.root / "suites" / "two.yaml").write_text(f"name: two\nsteps: {steps}\n")
    where = ["--cluster", str(desk.cluster), "--at", minutes_ago(2), "--tz", "Asia/Seoul"]
    desk.run("add", "jw3", "--suite", "two", *where)
    desk.made_since(timedelta(hours=1))
    desk.run("tick", "jw3", code=1)

    (night,) = desk.nights()
    assert night["state"] == "failed"
    assert "step b: needs no-such-tool" in str(night["reason"])
    assert "suite two on" in desk.run("list")
    (run_id,) = night["run_ids"]  # type: ignore[misc]
    assert (desk.layout.suites / run_id / f"{run_id}.tar.gz").exists()


def test_before_its_time_nothing_runs(desk: Desk) -> None:
    desk.add(at=minutes_ago(-30))

    desk.run("tick", "jw3")

    assert desk.kinds() == []


def test_a_night_that_never_began_is_missing(desk: Desk) -> None:
    """Nothing was started, no cron, no host: the watcher and the log say so all the same."""
    desk.add("--catch-up", "0", at=minutes_ago(90))
    desk.made_since(timedelta(hours=3))

    said = desk.run("watch", "jw3", code=1)
    again = desk.run("watch", "jw3")

    assert "is missing: nothing had begun an hour after its time" in said
    assert again == ""
    (night,) = desk.nights()
    assert (night["state"], night["alarms"]) == ("missing", True)


@pytest.mark.parametrize("rule, kind", [("skip", "skipped"), ("queue", "queued")])
def test_of_two_overlapping_nights_one_waits_or_is_skipped(
    desk: Desk, rule: str, kind: str
) -> None:
    desk.add("--overlap", rule, at=minutes_ago(2))
    desk.made_since(timedelta(hours=1))
    folder, _ = find_schedule(desk.layout, "jw3")

    with working_on(folder) as alone:
        assert alone
        desk.run("tick", "jw3")
        desk.run("tick", "jw3")
        assert desk.kinds() == [kind]
    desk.run("tick", "jw3")

    assert desk.kinds() == ([kind, "started", "finished"] if rule == "queue" else [kind])


def test_two_at_once_begin_one_run(desk: Desk) -> None:
    desk.add("--overlap", "queue", at=minutes_ago(2))
    desk.made_since(timedelta(hours=1))

    both = [desk.start("tick", "jw3") for _ in range(2)]
    for process in both:
        process.communicate(timeout=scaled(90))

    assert desk.kinds().count("started") == 1


def test_a_night_over_its_limit_is_stopped(desk: Desk) -> None:
    desk.add(at=minutes_ago(2), lines=10_000)
    folder, schedule = find_schedule(desk.layout, "jw3")
    since = time.time() - 3600
    save_schedule(folder, replace(schedule, since=since, limit_s=60))
    text = folder.schedule.read_text().replace("limit_s: 60", "limit_s: 60.0")
    folder.schedule.write_text(text)
    # A limit that people can give is a minute at least; the night's process is bound the same way.
    process = desk.start("tick", "jw3")
    deadline = time.monotonic() + scaled(60)
    while "started" not in desk.kinds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=scaled(90))

    (night,) = desk.nights()
    assert night["state"] == "failed"
    assert "asked to stop" in str(night["reason"])


def test_a_night_is_never_half_begun_by_a_signal(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that arrives when the night is noted as begun, before its run is a process."""
    desk.add(at=minutes_ago(2), lines=10_000)
    desk.made_since(timedelta(hours=1))

    def stop_when_begun(folder: NightlyFolder, record: NightRecord) -> None:
        append_record(folder, record)
        if record.kind is RecordKind.STARTED:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run_night, "append_record", stop_when_begun)
    for name, value in desk.env.items():
        monkeypatch.setenv(name, value)
    main(["nightly", "tick", "jw3"])

    (night,) = desk.nights()
    assert night["state"] == "failed"
    assert "asked to stop" in str(night["reason"])


def test_a_night_whose_process_died_is_half_done(desk: Desk) -> None:
    desk.add(at=minutes_ago(2), lines=500)
    desk.made_since(timedelta(hours=1))
    process = desk.start("tick", "jw3")
    deadline = time.monotonic() + scaled(60)
    while "started" not in desk.kinds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.communicate(timeout=scaled(60))

    (night,) = desk.nights()
    assert night["state"] == "half-done"
    said = desk.run("watch", "jw3", code=1)
    assert "half-done" in said
    run_id = str(night["run_ids"][0])  # type: ignore[index]
    argv = [sys.executable, "-P", "-m", "orchestrator", "stop", run_id]
    subprocess.run(argv, env=desk.env, capture_output=True, timeout=scaled(90), check=False)


def test_a_suspicious_night_is_measured_once_more_and_both_are_kept(desk: Desk) -> None:
    desk.add()
    folder, schedule = find_schedule(desk.layout, "jw3")
    asked: list[bool] = []

    def after_run(_night: str, last: bool) -> bool:
        asked.append(last)
        return True  # also the second time: that is the end of it

    shift = NightShift(
        layout=desk.layout,
        folder=folder,
        schedule=schedule,
        say=lambda _: None,
        page=StatusFile(desk.layout, "", 1.0, pytest.fail),
        after_run=after_run,
    )

    assert shift.run_night(shift.today()) == 0

    (night,) = desk.nights()
    first, second = night["run_ids"]  # type: ignore[misc]
    assert asked == [False, True]
    assert desk.kinds() == ["started", "finished"] * 2
    kept = sqlite_history(desk.layout.history).read_runs(RunQuery())
    assert [run.run_id for run in kept] == [second, first]


def test_the_status_file_is_fresh_while_the_night_runs(desk: Desk) -> None:
    """It shows the run that is under way, then how it ended; each time as a whole."""
    page = desk.root / "live_status.md"
    desk.add("--status", str(page), "--status-every", "1", lines=20)
    process = desk.start("run", "jw3")
    deadline = time.monotonic() + scaled(60)
    while "## Running" not in (text := page.read_text() if page.exists() else ""):
        assert time.monotonic() < deadline
        assert not text or text.endswith("\n")
        time.sleep(0.05)
    output, _ = process.communicate(timeout=scaled(90))

    assert process.returncode == 0, output
    assert "| running |" in text
    last = page.read_text()
    assert last.startswith("# orchestrate: 0 running, 0 alarms")
    assert "| done |" in last
    assert "## Running" not in last


def test_a_status_file_that_cannot_be_written_costs_a_warning(desk: Desk) -> None:
    desk.add("--status", str(desk.root / "nowhere" / "status.md"), "--status-every", "1", lines=30)

    said = desk.run("run", "jw3")

    assert said.count("the status could not be written") == 1
    assert "jw3: the run of 20" in said
    assert "jw3: over with exit code 0; orchestrate nightly log jw3" in said


def test_the_watchdog_writes_the_status_file_although_nothing_runs(desk: Desk) -> None:
    page = desk.root / "status.html"
    desk.add("--status", str(page), at=minutes_ago(90))
    desk.made_since(timedelta(hours=3))

    desk.run("watch", "jw3", code=1)

    assert "is missing: nothing had begun an hour after its time" in page.read_text()


def test_an_empty_environment_is_enough(desk: Desk) -> None:
    """cron and ``env -i`` bring neither PATH nor HOME."""
    needs_cron()
    desk.cron = None
    (desk.root / "cron").mkdir()
    own = PrivateCron(desk.root / "cron")
    desk.env["PATH"] = f"{own.program.parent}{os.pathsep}{os.environ['PATH']}"
    desk.add(at=minutes_ago(2))
    desk.made_since(timedelta(hours=1))
    desk.run("install", "jw3", "--cron")
    folder, _ = find_schedule(desk.layout, "jw3")

    argv = ["/usr/bin/env", "-i", "/bin/sh", str(folder.wake), "tick"]
    done = subprocess.run(argv, timeout=scaled(90), check=False)

    assert done.returncode == 0, folder.wake_log.read_text()
    assert desk.nights()[0]["state"] == "done"


@pytest.mark.parametrize(
    "options, words",
    [
        (["--at", "25:00"], "not a time of day"),
        (["--at", "*/5 * * * *"], "more than one run a night"),
        (["--at", "0 19 30 2 *"], "not a schedule of cron"),
        (["--tz", "Asia/Soul"], "did you mean 'Asia/Seoul'"),
        (["--tz", "Mars/X"], "timedatectl list-timezones"),
        (["--workload", "slep"], "did you mean"),
        (["--set", "line=2"], "lines"),
        (["--cluster", "nowhere"], "nowhere"),
        (["--env", "A B=1"], "not a variable"),
    ],
)
def test_mistakes_are_refused_before_anything_is_kept(
    desk: Desk, options: list[str], words: str
) -> None:
    given = {"--cluster": str(desk.cluster), "--workload": "sleep", "--at": "19:00"}
    given |= {"--tz": "Asia/Seoul", **dict([options])}
    flat = [word for pair in given.items() for word in pair]

    said = desk.run("add", "jw3", *flat, code=2)

    assert words in said
    assert not (desk.layout.home / "nightly" / "jw3" / "schedule.yaml").exists()


def test_a_damaged_schedule_is_shown_with_its_place(desk: Desk) -> None:
    desk.add()
    folder, _ = find_schedule(desk.layout, "jw3")
    text = folder.schedule.read_text()
    folder.schedule.write_text(text.replace("Asia/Seoul", "Asia/Soul"))

    said = desk.run("tick", "jw3", code=2)

    line = 1 + text[: text.index("Asia/Seoul")].count("\n")
    assert f"schedule.yaml:{line}:" in said
    assert "Asia/Seoul" in said
