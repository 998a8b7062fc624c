"""Signals and readers at awkward moments: every run ends with a result and without processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.processes import Here, remains
from tests.hosts.running import Desk, wait_until
from tests.hosts.terminal import CTRL_C, CTRL_S, on_terminal
from tests.time_limits import Deadline, communicate, scaled, wait_for_exit

pytestmark = pytest.mark.processes

HERE = Here()
CHATTY = """
import sys
for number in range(40_000):
    print("x" * 100, number)
"""


def unique(name: str) -> str:
    """A run id that is on no other command line of this machine."""
    return f"{name}-{uuid.uuid4().hex}"


def words(desk: Desk, run: str, *job: str, options: tuple[str, ...] = ()) -> list[str]:
    fixed = ["--cluster", str(desk.cluster), "--launcher", "direct", "--run-id", run]
    return ["run", *fixed, *options, "--", *job]


def result_of(desk: Desk, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((desk.folder(run) / "result.json").read_text())
    return found


@pytest.mark.parametrize("moment", ["request.json", "coordinator.json", "journal.jsonl"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_as_soon_as_the_run_exists(desk: Desk, moment: str, number: int) -> None:
    """However early it comes, from the run's folder on there is a result that says stopped."""
    job = desk.start("rank.py", "stay")
    wait_until(moment, lambda: (desk.folder(job.run) / moment).exists() or job.over)
    job.interrupt(number)
    ending = job.end()
    assert (ending.code, ending.result["status"]) == (128 + number, "stopped"), ending.err
    assert result_of(desk, job.run)["exit_code"] == ending.code
    assert not remains(HERE, job.run)


@pytest.mark.parametrize("moment", ["Swept", "report.md", "report.html", "result.json"])
def test_a_signal_when_the_run_is_over(desk: Desk, moment: str) -> None:
    """It changes no verdict that is being written: process, last line and file agree."""
    job = desk.start("rank.py", "stay", "0")
    path = desk.folder(job.run) / moment
    wait_until(
        moment,
        lambda: job.over or path.exists() or (moment == "Swept" and len(job.events("Swept")) == 2),
    )
    if job.process.poll() is None:
        job.interrupt(signal.SIGTERM)
    ending = job.end()
    assert ending.code == result_of(desk, job.run)["exit_code"]
    assert ending.code in (0, 143), ending.err
    assert not remains(HERE, job.run)


def test_the_reader_of_stdout_leaves(desk: Desk) -> None:
    """As with `| head -1`: the run goes on, quietly, and exits with its own code."""
    desk.script("chatty.py", CHATTY)
    run = unique("headed")
    command = words(desk, run, "chatty.py", options=("--json", "--follow"))
    with desk.popen(*command) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["type"] == "event"
        process.stdout.close()
        err = process.stderr.read()
        assert wait_for_exit(process, 60) == 0
    assert err == ""
    assert result_of(desk, run)["status"] == "succeeded"
    assert desk.log(run, "n1", "rank-0.out").count(b"\n") == 40_000


def test_a_reader_that_does_not_read(desk: Desk) -> None:
    """A pager at its first page holds up nothing: the run ends, and all of it can be read later."""
    desk.script("chatty.py", CHATTY)
    run = unique("paged")
    process = desk.popen(*words(desk, run, "chatty.py", options=("--json", "--follow")))
    result = desk.folder(run) / "result.json"
    wait_until("the result", result.exists, 60)
    out, err = communicate(process, 30)
    assert (process.returncode, err) == (0, "")
    *events, last = map(json.loads, out.splitlines())
    assert last == {**result_of(desk, run), "type": "result"}
    logged = [e["event"] for e in events if e["event"]["type"] == "Log"]
    assert len(logged) == 80_000


def test_a_terminal_that_is_held(desk: Desk) -> None:
    """Ctrl-S stops the screen, not the run; Ctrl-C still stops the run."""
    run = unique("held")
    with on_terminal(desk, *words(desk, run, "rank.py", "stay")) as terminal:
        terminal.wait_for("ready")
        terminal.press(CTRL_S)
        journal = desk.folder(run) / "journal.jsonl"
        terminal.process.send_signal(signal.SIGTERM)
        wait_until("stopped", lambda: b"StopRequested" in journal.read_bytes())
        wait_until("the result", (desk.folder(run) / "result.json").exists)
        terminal.hang_up()
        assert terminal.end() == 143
    assert not remains(HERE, run)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_standard_streams(desk: Desk, closed: str) -> None:
    """Nothing is written into files that got the number of a stream that was closed."""
    run = unique(f"closed-{len(closed)}")
    command = [sys.executable, "-m", "orchestrator", *words(desk, run, "rank.py", "stay", "0")]
    script = f'exec "$@" {closed}'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command],
        cwd=desk.project,
        env=desk.environment(),
        capture_output=True,
        timeout=scaled(60),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("journal.jsonl", "metrics.jsonl"):
        path = desk.folder(run) / name
        lines = path.read_text().splitlines() if path.exists() else []
        assert all(isinstance(json.loads(line), dict) for line in lines)


def test_ctrl_c_on_a_terminal_shows_every_node(desk: Desk) -> None:
    """Once: graceful, and the last screen has each node verified clean."""
    run = unique("once")
    with on_terminal(desk, *words(desk, run, "rank.py", "stay")) as terminal:
        journal = desk.folder(run) / "journal.jsonl"
        wait_until("both ranks run", lambda: _count(journal, b'"RankStarted"') == 2)
        terminal.press(CTRL_C)
        assert terminal.end() == 130
    last = terminal.screen[terminal.screen.index("stopping gracefully") :]
    assert "n1  clean" in last
    assert "n2  clean" in last
    assert "stopped  rank on pair" in last
    assert not remains(HERE, run)


def _count(path: Path, text: bytes) -> int:
    return path.read_bytes().count(text) if path.exists() else 0


def test_a_fourth_request_ends_whatever_hangs(tmp_path: Path) -> None:
    """A loop that does not answer any more cannot hold the user."""
    code = (
        "import asyncio, os, signal\n"
        "from orchestrator.engine.support.interrupts import Interrupts\n"
        "async def hang():\n"
        "    with asked.handled(lambda *_: None, lambda: None):\n"
        "        print('ready', flush=True)\n"
        "        while True: pass\n"
        "asked = Interrupts()\n"
        "asked.listen()\n"
        "asyncio.run(hang())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        deadline = Deadline(10)
        while process.poll() is None and not deadline.passed:
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        process.kill()
    assert process.returncode == 130
