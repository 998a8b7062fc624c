"""resume on this machine: what it refuses, what it accepts, and that only one wins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.processes import Here, remains
from tests.hosts.running import Desk, Job, open_desk, wait_until
from tests.hosts.surviving import SCRIPT, STEPS, Work, faults, log_of, release, resumed
from tests.time_limits import wait_for_exit

pytestmark = pytest.mark.processes

NODES = ("n1", "n2")

# Fails once: rank 1 gives up after its first two steps, and leaves a mark for its next attempt.
FAILS = STEPS.replace(
    "    if asked:\n        break\n",
    "    mark = kit.checkpoint_dir() / 'failed-before'\n"
    "    if rank == 1 and step == 1 and not mark.exists():\n"
    "        mark.touch()\n"
    "        sys.exit(3)\n"
    "    if asked:\n        break\n",
)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(NODES, steps=5, pause_s=0.01, held=3, workdir=str(tmp_path / "node"))


@pytest.fixture
def desk(tmp_path: Path, work: Work, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Two nodes that are this machine; ranks look for their sign in a home of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    cluster = tmp_path / "pair.yaml"
    python, workdir = json.dumps(sys.executable), json.dumps(work.workdir)
    cluster.write_text(
        f"name: pair\n"
        f"defaults: {{transport: local, gpus: 0, python: {python}, workdir: {workdir}}}\n"
        f"nodes: ['n[1-2]']\n"
    )
    # Runs get their names from it; tests beside these look at the same process table.
    root = tmp_path / f"here-{os.getpid()}-{tmp_path.name}"
    root.mkdir()
    with open_desk(root, cluster) as desk:
        desk.script(SCRIPT, STEPS)
        yield desk
    for run in (path.name for path in (desk.home / "runs").glob("*")):
        desk.command("stop", run, "--now")
        assert not remains(Here(), run)


def start(desk: Desk, work: Work, *options: str) -> Job:
    """A run whose ranks wait at the step that is held."""
    job = desk.start(SCRIPT, *work.arguments, options=options)
    for rank in range(len(NODES)):
        job.wait_for_line(work.printed(rank).splitlines()[work.held - 1], 1)
    return job


def check(desk: Desk, job: Job, work: Work) -> None:
    """`resume` got it to its end, as if nothing had happened."""
    again, ending = resumed(desk, job.run)
    assert ending.code == 0, again.err
    assert not list(faults(desk.folder(job.run), Here(), work))


def refused(desk: Desk, run: str, *options: str) -> str:
    """What `resume` says when it changes nothing and exits 2."""
    before = (desk.folder(run) / "journal.jsonl").read_bytes()
    done = desk.command("resume", run, *options)
    assert done.returncode == 2, done.stderr
    assert (desk.folder(run) / "journal.jsonl").read_bytes() == before
    return done.stderr


def test_a_failed_run_goes_on_only_when_asked_to(desk: Desk, work: Work) -> None:
    """Without --retry it stays as it is; with it, another attempt starts from the checkpoints."""
    desk.script(SCRIPT, FAILS)
    release(Here(), desk.next_run, ["here"])
    job, ending = desk.run(SCRIPT, *work.arguments)
    assert ending.code == 1, ending.err
    over, ending = resumed(desk, job.run)
    assert ending.code == 1
    assert f"orchestrate resume {job.run} --retry" in over.err
    again, ending = resumed(desk, job.run, "--retry")
    assert ending.code == 0, again.err
    assert not list(faults(desk.folder(job.run), Here(), work))
    error = log_of(desk.folder(job.run), "n2", "rank-1.err", 2)
    assert error.read_text() == "from 2\n"


def test_a_run_has_one_coordinator(desk: Desk, work: Work) -> None:
    """While one lives, resume exits 75 and says who; of two that come at once, one wins."""
    job = start(desk, work)
    busy = desk.command("resume", job.run)
    assert busy.returncode == 75
    assert f"is coordinated by process {job.process.pid}" in busy.stderr
    job.abandon()
    both = [desk.resume(job.run) for _ in range(2)]
    wait_until("one of them left", lambda: any(j.process.poll() is not None for j in both))
    release(Here(), job.run, ["here"])
    assert sorted(wait_for_exit(j.process, 60) for j in both) == [0, 75]
    assert not list(faults(desk.folder(job.run), Here(), work))


def test_changed_code_is_refused(desk: Desk, work: Work) -> None:
    """It is named; put back, the run goes on, which the changed code does not change either."""
    job = start(desk, work)
    job.abandon()
    desk.script(SCRIPT, STEPS + "# another\n")
    desk.script("extra.py", "")
    said = refused(desk, job.run)
    assert "extra.py is new" in said
    assert f"{SCRIPT} changed" in said
    assert f"orchestrate resume {job.run} --accept-change" in said
    release(Here(), job.run, ["here"])
    (desk.project / "extra.py").unlink()
    desk.script(SCRIPT, STEPS)
    check(desk, job, work)


def test_a_changed_inventory_is_refused_unless_accepted(desk: Desk, work: Work) -> None:
    """The key is named; accepted, another attempt follows it."""
    job = start(desk, work)
    job.interrupt()
    assert job.end().code == 130
    text = desk.cluster.read_text()
    desk.cluster.write_text(text.replace("gpus: 0", "gpus: 0, env: {GREETING: hello}"))
    assert "env.GREETING" in refused(desk, job.run)
    desk.script(SCRIPT, STEPS.replace('print("from"', 'print(os.environ.get("GREETING")'))
    again, ending = resumed(desk, job.run, "--accept-change")
    assert ending.code == 0, again.err
    assert not list(faults(desk.folder(job.run), Here(), work))
    assert log_of(desk.folder(job.run), "n1", "rank-0.err", 1).read_text() == "from 0\n"
    assert log_of(desk.folder(job.run), "n1", "rank-0.err", 2).read_text() == "hello 4\n"


def test_another_directory_does_not_matter(desk: Desk, work: Work, tmp_path: Path) -> None:
    """resume finds what the run was asked for, wherever it is called."""
    job = start(desk, work)
    job.abandon()
    release(Here(), job.run, ["here"])
    desk.project, original = tmp_path, desk.project
    check(desk, job, work)
    assert original.is_dir()


def test_a_run_appears_complete_or_not_at_all(desk: Desk, work: Work) -> None:
    """Killed before it has all that `resume` needs, there is no run."""
    run = desk.next_run
    job = desk.start(SCRIPT, *work.arguments)
    wait_until("the run is there", lambda: desk.folder(run).exists())
    os.kill(job.process.pid, 9)
    names = {path.name for path in desk.folder(run).iterdir()}
    assert {"request.json", "invocation.json", "code.manifest", "logs", "artifacts"} <= names
    release(Here(), run, ["here"])
    check(desk, job, work)


def test_no_such_run(desk: Desk) -> None:
    """Exit 2, and how to find the runs that there are."""
    done: subprocess.CompletedProcess[str] = desk.command("resume", "nothing")
    assert done.returncode == 2
    assert "next: " in done.stderr
