"""A suite on this machine: what fails stops nothing else, what was done is not done again, and the
archive is whole.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.archive.read_archive import ReadArchive, read_archive
from orchestrator.cli.main import main
from orchestrator.core.suite.suite_model import DEFAULT_LIMIT_S
from tests.archive.test_archive import most_bytes_of_a_file
from tests.cli.local_desk import open_local_desk
from tests.hosts.running import Desk, Job, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow]

WITHIN_S = 120.0
PROGRAM = """
import os, sys, time
from dataclasses import dataclass

import orchestrate_kit as kit

@dataclass(frozen=True)
class Settings:
    marks: str
    wait: str
    code: int

settings = kit.parse(Settings)
with open(settings.marks, "a") as file:
    file.write(os.environ["ORCHESTRATE_RUN_ID"].rpartition("-")[2] + "\\n")
while settings.wait and not os.path.exists(settings.wait):
    time.sleep(0.02)
(kit.output_dir() / "noise").write_bytes(os.urandom(100_000))
kit.metric("answer", 42.0)
sys.exit(settings.code)
"""
WORKLOAD = """
name: marks
summary: Leaves a mark
entry: marks.py
shape: independent
ranks: {per: node, cpu: 1}
parameters:
  marks: {type: str, default: ""}
  wait: {type: str, default: ""}
  code: {type: int, default: 0}
metrics:
  answer: {unit: items}
artifacts: [noise]
"""
SUITE = """
name: trio
summary: One that fails between two that do not
steps:
  - {name: last, workload: marks, after: [second], parameters: {marks: PLACE/marks}}
  - {name: first, workload: marks, parameters: {marks: PLACE/marks, code: CODE}}
  - {name: second, workload: marks, parameters: {marks: PLACE/marks, wait: PLACE/go}}
  - {name: traced, workload: marks, optional: true, requires: {tools: [no-such-tool, sh]}}
"""


class SuiteDesk:
    """A desk with the suite ``trio`` and its workload in the project's folder."""

    def __init__(self, desk: Desk, place: Path) -> None:
        self.desk = desk
        self._place = place
        folder = desk.project / "workloads" / "marks"
        folder.mkdir(parents=True)
        (folder / "workload.yaml").write_text(WORKLOAD)
        (folder / "marks.py").write_text(PROGRAM)
        (desk.project / "suites").mkdir()
        self.write(code=0)

    def write(self, *, code: int) -> None:
        """The suite, whose first step ends with ``code``."""
        text = SUITE.replace("PLACE", str(self._place)).replace("CODE", str(code))
        (self.desk.project / "suites" / "trio.yaml").write_text(text)

    def let_go(self) -> None:
        """The second step may end."""
        (self._place / "go").touch()

    @property
    def marks(self) -> list[str]:
        """The steps whose ranks began, in that order."""
        path = self._place / "marks"
        return path.read_text().split() if path.exists() else []

    def words(self, *options: str) -> list[str]:
        return ["suite", "run", "trio", "--cluster", str(self.desk.cluster), "--json", *options]

    def run(self, *options: str, code: int = 0) -> dict[str, Any]:
        """The result, which is the last line."""
        done = self.desk.command(*self.words(*options), within_s=WITHIN_S)
        assert done.returncode == code, done.stderr
        records = [json.loads(line) for line in done.stdout.splitlines()]
        assert [r["type"] for r in records].index("result") == len(records) - 1
        assert records[-1]["exit_code"] == code
        return records[-1]

    def begin(self) -> Job:
        """A suite whose second step is under way."""
        job = self.desk.follow("trio", *self.words())
        wait_until("the second step", lambda: self.marks[1:], WITHIN_S)
        return job

    def suite_folder(self) -> Path:
        (folder,) = (self.desk.home / "suites").glob("*-trio-*")
        return folder

    def step_folder(self, step: str) -> Path:
        (folder,) = (self.desk.home / "runs").glob(f"*-{step}")
        return folder


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[SuiteDesk]:
    with open_local_desk(tmp_path, 1) as desk:
        yield SuiteDesk(desk, tmp_path)


def states(result: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["state"] for step in result["steps"]}


def whole_archive(result: dict[str, Any]) -> ReadArchive:
    return read_archive(Path(result["archive"]["path"]), lambda name: name.endswith(".json"))


def test_a_failing_step_stops_no_other(trio: SuiteDesk) -> None:
    """Exit 1, all others done in their order, the optional one skipped with its reason, and one
    archive with every run and the state of the nodes.
    """
    trio.write(code=3)
    trio.let_go()
    result = trio.run(code=1)

    assert states(result) == {
        "first": "failed",
        "second": "passed",
        "last": "passed",
        "traced": "skipped",
    }
    assert trio.marks == ["first", "second", "last"]
    steps = {step["name"]: step for step in result["steps"]}
    assert steps["traced"]["reason"] == "needs no-such-tool, which is not on the PATH of n1"
    assert steps["second"]["metrics"]["answer"]["value"] == 42.0
    assert "step first: " in result["failure"]["cause"]
    archive = whole_archive(result)
    paths = {file.path for file in archive.manifest.files}
    for step in ("first", "second", "last"):
        assert f"runs/{steps[step]['run_id']}/report.html" in paths
    assert f"runs/{steps['last']['run_id']}/artifacts/n1/noise" in paths
    assert {"summary.md", "summary.html", "suite.yaml", "output/first.log"} <= paths
    environment = json.loads(archive.files["environment.json"])
    assert environment["nodes"][0]["facts"]["node"] == "n1"
    assert not [path for path in paths if path.endswith(("request.json", "coordinator.json"))]


def test_a_killed_suite_is_resumed_and_repeats_nothing(trio: SuiteDesk) -> None:
    """Its step's run went on without it: the suite attaches to it."""
    trio.begin().abandon()
    resumed = trio.desk.follow("trio", *trio.words("--resume"))
    resumed.wait_for("Note", within_s=WITHIN_S)
    trio.let_go()
    assert resumed.end(WITHIN_S).code == 0
    again = trio.run("--resume")

    assert trio.marks == ["first", "second", "last"]
    assert set(states(again).values()) == {"passed", "skipped"}
    assert whole_archive(again).manifest.about["status"] == "succeeded"


def test_a_killed_coordinator_of_a_step_is_resumed_too(trio: SuiteDesk) -> None:
    """Both are gone, as after a crash of the machine's session; the ranks are followed again."""
    trio.begin().abandon()
    coordinator = trio.step_folder("second") / "coordinator.json"
    os.kill(json.loads(coordinator.read_bytes())["pid"], signal.SIGKILL)
    trio.let_go()
    result = trio.run("--resume")

    assert trio.marks == ["first", "second", "last"]
    assert set(states(result).values()) == {"passed", "skipped"}


def test_an_interrupted_suite_leaves_nothing_running_and_continues(trio: SuiteDesk) -> None:
    """Ctrl-C stops the step's run and ends with 130; ``--resume`` continues that run, but not with
    other code: then the other steps are done, and it says what to do.
    """
    job = trio.begin()
    job.interrupt()
    ended = job.end(WITHIN_S)
    trio.let_go()

    stopped = ended.result
    assert ended.code == 130
    assert states(stopped)["second"] == "stopped"
    assert (stopped["status"], stopped["archive"]) == ("stopped", None)
    program = trio.desk.project / "workloads" / "marks" / "marks.py"
    program.write_text(PROGRAM + "# other code\n")
    refused = trio.run("--resume", code=75)
    assert "--accept-change" in refused["steps"][1]["reason"]
    program.write_text(PROGRAM)
    result = trio.run("--resume")
    assert set(states(result).values()) == {"passed", "skipped"}
    assert sorted(trio.marks) == ["first", "last", "second", "second"]


def test_an_earlier_run_is_named_and_continued_within_what_is_left_of_its_limit(
    trio: SuiteDesk,
) -> None:
    """A killed suite, then another run of it: the first is resumed by its id. Its second step was
    under way for longer than it may by then: it is stopped, and the last one runs.
    """
    trio.begin().abandon()
    killed = trio.suite_folder()
    other = trio.desk.follow("trio", *trio.words("--only", "first", "--run-id", "other"))
    assert other.end(WITHIN_S).code == 0
    notes = [event["text"] for event in other.events("Note")]
    assert [f"--run-id {killed.name}" in note for note in notes] == [True]
    begin_earlier(killed / "steps.jsonl", "second", by_s=DEFAULT_LIMIT_S)
    result = trio.run("--resume", "--run-id", killed.name, code=1)

    assert result["run_id"] == killed.name
    assert states(result) == {
        "first": "passed",
        "second": "failed",
        "last": "passed",
        "traced": "skipped",
    }
    second = result["steps"][1]
    assert second["reason"] == "over its limit of 3600 s"
    assert second["seconds"] > DEFAULT_LIMIT_S
    assert trio.run("--resume")["run_id"] == "other"  # the latest, where none is named
    assert trio.marks == ["first", "second", "first", "last"]
    refused = trio.desk.command("suite", "run", "smoke", *trio.words("--resume")[3:])
    assert (refused.returncode, "no run of suite smoke" in refused.stderr) == (2, True)


def begin_earlier(log: Path, step: str, *, by_s: float) -> None:
    """As if the run of ``step`` had begun ``by_s`` seconds earlier."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    for record in records:
        record["at"] -= by_s if record["step"] == step else 0.0
    log.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_test_that_cannot_be_continued_begins_anew(trio: SuiteDesk) -> None:
    """As that of a load, which says so: ``--resume`` is all that its user has to say."""
    workload = trio.desk.project / "workloads" / "marks" / "workload.yaml"
    workload.write_text(WORKLOAD + "begins_anew: true\n")
    job = trio.begin()
    job.interrupt()
    assert job.end(WITHIN_S).code == 130
    trio.let_go()

    result = trio.run("--resume")
    assert set(states(result).values()) == {"passed", "skipped"}
    assert sorted(trio.marks) == ["first", "last", "second", "second"]


def test_a_step_that_its_user_retried_has_the_time_of_that_run(trio: SuiteDesk) -> None:
    """Stopped with its suite, brought to its end by hand: the suite repeats nothing of it."""
    job = trio.begin()
    job.interrupt()
    stopped = job.end(WITHIN_S)
    assert stopped.code == 130
    trio.let_go()
    run_id = stopped.result["steps"][1]["run_id"]
    log = trio.suite_folder() / "steps.jsonl"
    begin_earlier(log, "second", by_s=DEFAULT_LIMIT_S / 2)
    resumed = trio.desk.command("resume", run_id, "--json")
    assert resumed.returncode == 0
    own = json.loads(resumed.stdout.splitlines()[-1])

    result = trio.run("--resume")
    assert set(states(result).values()) == {"passed", "skipped"}
    assert result["steps"][1]["seconds"] == pytest.approx(sum(own["timings"].values()))
    assert sorted(trio.marks) == ["first", "last", "second", "second"]


def test_a_full_disk_loses_nothing_that_was_done(
    trio: SuiteDesk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """75, every run kept; with room again only the archive is made, and moved where it is to be."""
    trio.let_go()
    blocked = trio.desk.project / "file"
    blocked.touch()
    result = trio.run("--archive-to", str(blocked / "below"), code=75)
    assert (result["status"], result["archive"]) == ("succeeded", None)

    monkeypatch.chdir(trio.desk.project)
    monkeypatch.setenv("ORCHESTRATE_HOME", str(trio.desk.home))
    capsys.readouterr()
    with most_bytes_of_a_file(100_000):
        assert main(trio.words("--resume")) == 75
    told = capsys.readouterr()
    assert "File too large" in told.err
    assert "--resume" in told.err
    assert json.loads(told.out.splitlines()[-1])["archive"] is None

    shelf = trio.desk.project / "shelf"
    result = trio.run("--resume", "--archive-to", f"n1:{shelf}")
    assert trio.marks == ["first", "second", "last"]
    assert result["archive"]["path"].startswith(f"n1:{shelf}/")
    (kept,) = shelf.iterdir()
    assert read_archive(kept).manifest.kind == "suite"
    assert not list((trio.desk.home / "suites").glob("*/*.tar.gz"))


@pytest.mark.parametrize(
    "options, what",
    [
        (["--only", "firstt"], "trio has no step 'firstt'"),
        (["--skip", "secondd"], "did you mean 'second'?"),
        (["--resume"], "there is no run of suite trio"),
        (["--archive-to", "n2:shelf"], "no node of the cluster is called 'n2'"),
        (["--run-id", "a b"], "not a run id"),
    ],
)
def test_mistakes_are_found_before_anything_is_contacted(
    trio: SuiteDesk, options: list[str], what: str
) -> None:
    done = trio.desk.command(*trio.words(*options))

    assert (done.returncode, what in done.stderr) == (2, True), done.stderr
    assert json.loads(done.stdout)["exit_code"] == 2
    assert not (trio.desk.home / "suites").exists()
    assert not (trio.desk.home / "runs").exists()


def test_show_says_what_would_not_run(trio: SuiteDesk) -> None:
    """The same reasons as those of a run, and nothing is started."""
    done: subprocess.CompletedProcess[str] = trio.desk.command(
        "suite", "show", "trio", "--cluster", str(trio.desk.cluster)
    )

    rows = {line.split()[0]: line for line in done.stdout.splitlines()[2:]}
    assert list(rows) == ["first", "second", "last", "traced"]
    assert rows["traced"].endswith("is skipped: needs no-such-tool, which is not on the PATH of n1")
    assert all(rows[name].endswith("runs") for name in ("first", "second", "last"))
    assert not (trio.desk.home / "runs").exists()
