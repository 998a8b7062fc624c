"""Schedules in the real crontab, and cron itself."""

from __future__ import annotations

import time
from copy import copy
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.adapters.store.layout import Layout
from tests.nightly.night_desk import SEOUL, Desk
from tests.time_limits import scaled


def replace_home(desk: Desk) -> Desk:
    """The same user's second home."""
    other = copy(desk)
    other.root = desk.root / "second"
    other.root.mkdir()
    other.layout = Layout(other.root / "home")
    other.env = {**desk.env, "ORCHESTRATE_HOME": str(other.root / "home")}
    return other


pytestmark = pytest.mark.processes

OWN = "# mine\nMAILTO=\"\"\n5 4 * * sun echo 'a%b'\n\n"


ODD = "# \xe9\t\x1b[1m \x0c form feed\n5 4 * * sun printf 'a\\r\\n'\n"
WINDOWS = "# mine\n5 4 * * sun echo x\r\n"


@pytest.mark.parametrize("before", [None, OWN, "", ODD])
def test_remove_leaves_the_crontab_byte_for_byte(cron_desk: Desk, before: str | None) -> None:
    cron = cron_desk.cron
    assert cron is not None
    if before is not None:
        cron.write(before)
    cron_desk.add()

    cron_desk.run("install", "jw3", "--cron")
    first = cron.text()
    cron_desk.run("install", "jw3", "--cron")
    second = cron.text()
    cron_desk.run("remove", "jw3")

    assert first == second
    assert first is not None
    assert first.startswith(before or "")
    assert sum("wake" in line for line in first.splitlines()) == 2
    assert "CRON_TZ" not in first
    assert cron.text() == before


def test_a_schedule_of_the_same_name_in_another_home_keeps_its_lines(cron_desk: Desk) -> None:
    cron = cron_desk.cron
    assert cron is not None
    cron_desk.add()
    cron_desk.run("install", "jw3", "--cron")
    mine = cron.text()
    other = replace_home(cron_desk)
    other.add()

    other.run("install", "jw3", "--cron")
    both = cron.text()
    listed = cron_desk.run("list")
    other.run("remove", "jw3")

    assert mine is not None
    assert both is not None
    assert both.startswith(mine)
    assert both.count("wake") == 2 * mine.count("wake")
    assert "cron" in listed
    assert cron.text() == mine


def test_carriage_returns_are_refused_where_writing_would_change_them(cron_desk: Desk) -> None:
    """``crontab -l`` shows them as a backslash and an r."""
    cron = cron_desk.cron
    assert cron is not None
    cron.write(WINDOWS)
    (spool,) = (cron.root / "spool").iterdir()
    before = spool.read_bytes()
    cron_desk.add()

    said = cron_desk.run("install", "jw3", "--cron", code=2)

    assert "line 2" in said
    assert "carriage return" in said
    assert spool.read_bytes() == before


def test_lines_of_ours_that_an_editor_ended_otherwise_are_still_removed(cron_desk: Desk) -> None:
    cron = cron_desk.cron
    assert cron is not None
    cron.write("# mine\n")
    cron_desk.add()
    cron_desk.run("install", "jw3", "--cron")
    installed = cron.text()
    assert installed is not None
    cron.write("# mine\n" + installed.removeprefix("# mine\n").replace("\n", "\r\n"))

    cron_desk.run("remove", "jw3")

    assert cron.text() == "# mine\n"


def test_a_crontab_without_its_last_newline_is_refused(cron_desk: Desk) -> None:
    """cron ignores such a file: with lines of ours behind it, it would begin to run."""
    cron = cron_desk.cron
    assert cron is not None
    cron.write("# mine\n")
    (spool,) = (cron.root / "spool").iterdir()
    spool.write_text("# mine\n5 4 * * * touch /nowhere")
    cron_desk.add()

    said = cron_desk.run("install", "jw3", "--cron", code=2)

    assert "last line has no end" in said
    assert spool.read_text() == "# mine\n5 4 * * * touch /nowhere"


def test_two_schedules_leave_nothing_either(cron_desk: Desk) -> None:
    cron = cron_desk.cron
    assert cron is not None
    cron_desk.add()
    what = ["--cluster", str(cron_desk.cluster), "--workload", "sleep"]
    cron_desk.run("add", "jw", *what, "--at", "2:30", "--tz", "Europe/Berlin")
    for name in ("jw3", "jw"):
        cron_desk.run("install", name, "--cron")
    listed = cron_desk.run("list")

    cron_desk.run("remove", "jw3")
    left = cron.text()
    cron_desk.run("remove", "jw")

    assert listed.count("cron") == 2
    assert left is not None
    assert "schedule jw:" in left
    assert "jw3" not in left
    assert cron.text() is None


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_cron_itself_starts_the_night(cron_desk: Desk) -> None:
    """Debian's cron, a schedule in Seoul, a host in whatever zone: it runs at its minute."""
    cron = cron_desk.cron
    assert cron is not None
    at = datetime.now(UTC) + timedelta(seconds=75)
    cron_desk.add(at=f"{at.astimezone(SEOUL):%H:%M}")
    cron_desk.run("install", "jw3", "--cron")
    daemon = cron.start_daemon()
    try:
        deadline = time.monotonic() + 75 + 60 + scaled(60)
        while cron_desk.kinds() != ["started", "finished"]:
            assert time.monotonic() < deadline, cron.text()
            time.sleep(0.5)
    finally:
        daemon.kill()  # with it goes its namespace, and all in it
        daemon.wait(scaled(30))

    (night,) = cron_desk.nights()
    assert night["state"] == "done"
    assert float(str(night["late_s"])) < 60
