"""`run --detach`: what its foreground says, passes on and leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.processes import Here, launch_held, remains
from tests.hosts.running import Desk, wait_until
from tests.time_limits import assert_within, communicate, scaled

pytestmark = pytest.mark.processes

HERE = Here()


def words(desk: Desk, run: str, *job: str, options: tuple[str, ...] = ()) -> list[str]:
    fixed = ["--cluster", str(desk.cluster), "--launcher", "direct", "--run-id", run]
    return ["run", "--detach", *fixed, *options, "--", "rank.py", *job]


def coordinator(desk: Desk, run: str) -> int:
    found: dict[str, Any] = json.loads((desk.folder(run) / "coordinator.json").read_text())
    return int(found["pid"])


def over(desk: Desk, run: str) -> bool:
    return (desk.folder(run) / "result.json").exists()


@pytest.fixture
def run() -> str:
    """An id that is on no other command line of this machine."""
    return f"detached-{uuid.uuid4().hex}"


@pytest.fixture
def tidy(desk: Desk) -> Iterator[Desk]:
    """The desk; background runs of a failed test are stopped."""
    yield desk
    for folder in (desk.home / "runs").glob("*"):
        if not over(desk, folder.name):
            desk.command("stop", folder.name, "--now")


def test_the_foreground_returns_when_the_ranks_run(tidy: Desk, run: str) -> None:
    """The id on stdout, what comes next on stderr; nothing of ours holds the caller's pipes."""
    began = time.monotonic()
    done = tidy.command(*words(tidy, run, "stay"))
    assert_within("run --detach: back", time.monotonic() - began, 20)
    assert (done.returncode, done.stdout) == (0, f"{run}\n"), done.stderr
    for verb in (f"attach {run}", f"logs -f {run}", f"stop {run}"):
        assert f"orchestrate {verb}" in done.stderr
    pid = coordinator(tidy, run)
    assert os.getsid(pid) not in (pid, os.getsid(0))
    held = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
    assert not [name for name in held if name.startswith("/dev/pts")]
    assert len(remains(HERE, run)["here"]) >= 4
    assert tidy.command("stop", run).returncode == 0
    assert f"{run}: rank on pair" in (tidy.folder(run) / "coordinator.log").read_text()
    wait_until("nothing is left", lambda: not remains(HERE, run), 10)


def test_json_ends_with_one_line_that_says_detached(tidy: Desk, run: str) -> None:
    """Events while it starts, then the id; no result, for there is none yet."""
    done = tidy.command(*words(tidy, run, "stay", options=("--json",)))
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert records[-1] == {"type": "detached", "schema_version": 1, "run_id": run, "phase": "watch"}
    assert {record["type"] for record in records[:-1]} == {"event"}
    assert tidy.command("stop", run).returncode == 0


def test_a_run_that_ends_at_once(tidy: Desk, run: str) -> None:
    """Before its ranks run, its failure is shown with its code as if nobody had detached."""
    broken = tidy.cluster.with_name("broken.yaml")
    python = json.dumps(sys.executable)
    broken.write_text(tidy.cluster.read_text().replace(python, "/nonexistent"))
    fixed = ["--cluster", str(broken), "--run-id", run, "--json"]
    done = tidy.command("run", "--detach", *fixed, "--", "rank.py")
    *_, last = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, last["type"]) == (4, "result"), done.stderr
    assert last["exit_code"] == 4
    assert "/nonexistent" in done.stderr


# GPUs that no other test of this machine has: locks are the machine's.
SMI = """#!/bin/sh
case "$*" in
*--query-gpu=index,uuid,memory.used*) printf '%s\\n' "770, GPU-a, 4" "771, GPU-b, 4" ;;
*--query-gpu=*)
    echo "770, NVIDIA H200, GPU-a, 143771, 4, 570.86.15"
    echo "771, NVIDIA H200, GPU-b, 143771, 4, 570.86.15" ;;
esac
"""


@pytest.fixture
def gpus(tidy: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two nodes has one GPU."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").write_text(SMI)
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    tidy.cluster.write_text(tidy.cluster.read_text().replace("gpus: 0, ", ""))


@pytest.mark.usefixtures("gpus")
def test_a_run_that_queues(tidy: Desk, run: str) -> None:
    """With --wait the foreground does not stay for as long as another run has the GPUs."""
    other = tidy.start("rank.py", "stay")
    other.wait_for_line("ready", 2)
    done = tidy.command(*words(tidy, run, "stay", options=("--json", "--wait", "90")))
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["type"], last["phase"]) == (0, "detached", "reserve"), done.stderr
    other.interrupt()
    other.end()
    journal = tidy.folder(run) / "journal.jsonl"
    wait_until("its turn", lambda: b"RankStarted" in journal.read_bytes())
    assert tidy.command("stop", run).returncode == 0


def test_bad_input_is_refused_in_the_foreground(tidy: Desk, run: str) -> None:
    """Exit 2 and no run."""
    done = tidy.command(*words(tidy, run, "stay", options=("--unattended", "soon")))
    assert done.returncode == 2
    assert "--unattended: expected a number of seconds" in done.stderr
    assert not tidy.folder(run).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_ranks_run(tidy: Desk, run: str, number: int) -> None:
    """It is passed on; the foreground shows the confirmed end and has its code."""
    share = tidy.node(run) / "n2"
    share.mkdir(parents=True, mode=0o700)
    with launch_held(HERE, "here", str(share)):
        process = tidy.popen(*words(tidy, run, "stay", options=("--json",)))
        journal = tidy.folder(run) / "journal.jsonl"
        wait_until("n1 is up", lambda: journal.exists() and b"RankStarted" in journal.read_bytes())
        process.send_signal(number)
        wait_until("passed on", lambda: b"StopRequested" in journal.read_bytes())
    out, err = communicate(process, 60)
    last = json.loads(out.splitlines()[-1])
    assert (process.returncode, last["status"]) == (128 + number, "stopped"), err
    assert not remains(HERE, run)


def test_a_coordinator_that_dies_at_once(tidy: Desk, run: str) -> None:
    """Its last words come to the foreground, with the commands that help."""
    code = (
        "import sys; from orchestrator.adapters.store import claim\n"
        "from orchestrator.cli import coordinate as coordinating\n"
        "def refuse(*_, **__): raise OSError(28, 'No space left on device')\n"
        "coordinating.claimed = refuse\n"
        "from orchestrator.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words(tidy, run, "stay")],
        cwd=tidy.project,
        env=tidy.environment(),
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert done.returncode == 75
    assert "No space left on device" in done.stderr
    assert "the coordinator cannot write to" in done.stderr
    assert f"orchestrate stop {run}" in done.stderr
