"""ps, show, logs, attach, stop, clean on real run folders."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.history.run_entry import describe_run, read_request
from orchestrator.adapters.store.journal import Journal
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.run_list import read_result, write_result
from orchestrator.cli.main import main
from orchestrator.core.base.codec import to_json
from orchestrator.core.base.outcome import Signalled
from orchestrator.core.model.workload import Direction
from orchestrator.core.run.events import Collected, RankExited
from orchestrator.core.verdict.node_status import VERIFIED_CLEAN
from orchestrator.core.verdict.result import MetricResult, NodeResult, Result, Status
from orchestrator.engine.oneshot.cleanup import NodeVisit
from tests.architecture.source import ROOT
from tests.cli.runs_on_disk import LOGS, begin, events_of, finished
from tests.time_limits import communicate, scaled

KILLED = RankExited(node="a", rank=0, outcome=Signalled(9), at=1.0, last_line="boom")

COORDINATOR = """
import signal, sys, threading
from pathlib import Path
from orchestrator.adapters.store.liveness import identify_self, write_identity
from orchestrator.adapters.store.layout import RunFolder
folder = RunFolder(Path(sys.argv[1]))
seen = []
over = threading.Event()
def stop(number, frame):
    seen.append(signal.Signals(number).name)
    (folder.path / "signals").write_text(" ".join(seen))
    if len(seen) == int(sys.argv[2]):
        folder.result.write_bytes((folder.path / "prepared").read_bytes())
        over.set()
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
write_identity(folder.coordinator, identify_self(1.0))
print("ready", flush=True)
over.wait(30)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def lines_of(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_ps_lists_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line per run with its state; JSON has the same facts."""
    finished(home)
    begin(home, "r2")
    assert main(["ps"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in table[1:]] == [
        ["r1", "succeeded", "test", "job"],
        ["r2", "running", "test", "job"],
    ]
    assert main(["ps", "--json", "-n", "1"]) == 0
    (record,) = lines_of(capsys.readouterr().out)
    assert (record["run_id"], record["state"]) == ("r2", "running")


def test_show_tells_the_result(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary for people, the result object for machines, the failure with its evidence."""
    finished(home, KILLED)
    assert main(["show", "last"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("failed  job on test")
    assert "FAILED: rank 0 on a was killed by SIGKILL" in text
    assert "| warning 0" in text
    assert main(["show", "r", "--json"]) == 0
    (record,) = lines_of(capsys.readouterr().out)
    assert (record["type"], record["status"], record["exit_code"]) == ("result", "failed", 1)


def test_a_cleaned_run_is_remembered(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its folder is gone; the history still lists it and shows its result."""
    folder = finished(home)
    result = read_result(folder)
    assert result is not None
    remember(home, replace(result, report="report.html"), finished=10.0)
    assert main(["clean", "r1", "--local"]) == 0
    capsys.readouterr()
    assert main(["ps"]) == 0
    assert "succeeded, cleaned" in capsys.readouterr().out
    assert main(["ps", "--json"]) == 0
    (record,) = lines_of(capsys.readouterr().out)
    assert (record["run_id"], record["cleaned"]) == ("r1", True)
    for verb in ("logs", "stop", "resume", "attach"):
        assert main([verb, "r1"]) == 2
        assert "the folder of run r1 was removed" in capsys.readouterr().err
    assert main(["show", "r1"]) == 0
    shown = capsys.readouterr().out
    assert "its folder was removed" in shown
    assert "report.html" not in shown
    assert shown.startswith("succeeded  job on test")


def test_show_compares_with_earlier_runs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the median of those before it, with the better direction as the workload declared it."""
    folder = finished(home)
    result = read_result(folder)
    assert result is not None
    speed = MetricResult(value=110.0, unit="tok/s", direction=Direction.HIGHER)
    for number, value in enumerate([100.0, 90.0, 1000.0]):
        remember_copy(home, replace(result, metrics={"speed": replace(speed, value=value)}), number)
    now = replace(result, metrics={"speed": speed})
    write_result(folder, now)
    remember(home, now, finished=9.0)
    assert main(["show", "last"]) == 0
    shown = capsys.readouterr().out
    assert "against the median of 3 earlier runs" in shown
    assert "speed  100 tok/s  +10.0 %, better" in shown


def test_a_history_that_cannot_be_read_costs_a_warning(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(home)
    Layout(home).history.write_bytes(b"this is no database" * 100)
    assert main(["show", "last"]) == 0
    assert main(["ps"]) == 0
    out, err = capsys.readouterr()
    assert "r1" in out
    assert "not read" in err


def remember_copy(home: Path, result: Result, number: int) -> None:
    """Put a run like ``r1`` into the history, which finished at ``number``."""
    copy = f"old{number}"
    folder = Layout(home).run("r1").path
    shutil.copytree(folder, folder.with_name(copy))
    remember(home, replace(result, run_id=copy), finished=number)


def test_runs_with_other_arguments_are_not_compared(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their figures say nothing of this one, whatever became of their folders."""
    folder = finished(home)
    result = read_result(folder)
    assert result is not None
    speed = MetricResult(value=100.0, unit="tok/s", direction=Direction.HIGHER)
    result = replace(result, metrics={"speed": speed})
    write_result(folder, result)
    remember(home, result, finished=9.0)
    other = json.loads(folder.request.read_text())
    other["job"]["arguments"] = ["--other"]
    folder.request.write_text(json.dumps(other))
    remember_copy(home, result, 1)
    assert main(["show", "r1"]) == 0
    assert "earlier run" not in capsys.readouterr().out


def remember(home: Path, result: Result, *, finished: float) -> None:
    """Put a row into the history."""
    folder = Layout(home).run(result.run_id)
    request = read_request(folder)
    assert request is not None
    entry = describe_run(folder, request, result, started=0.0, finished=finished)
    open_history(Layout(home)).record_run(entry)


def test_show_of_a_run_without_result(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Says how the run is and what to do, exit 75."""
    begin(home)
    assert main(["show", "r1"]) == 75
    assert "orchestrate attach r1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options,expected",
    [
        (
            [],
            [
                "[a/0] warning 0",
                "[a/0] hello from 0",
                "[a/0] same",
                "[b/1] hello from 1",
                "[b/1] same",
                "[b/10] ten",
            ],
        ),
        (["--ranks", "1-10", "--no-prefix"], ["hello from 1", "same", "ten"]),
        (["--nodes", "a", "--stderr"], ["[a/0] warning 0"]),
        (["--stdout", "--grep", "^hello"], ["[a/0] hello from 0", "[b/1] hello from 1"]),
        (["--fold", "--grep", "same|ten"], ["[\u00d72 ranks] same", "[b/10] ten"]),
    ],
)
def test_logs_select_and_fold(
    home: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: list[str]
) -> None:
    """Launchers and ranks in order; every choice narrows; folding merges equal lines."""
    finished(home)
    assert main(["logs", "r1", *options]) == 0
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize("options", [["--ranks", "x"], ["--nodes", "a["], ["--grep", "("]])
def test_logs_refuse_what_they_cannot_read(
    home: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """A bad choice is an error of usage, not an empty answer."""
    finished(home)
    assert main(["logs", "r1", *options]) == 2
    assert options[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--ranks", "7"],
        ["--nodes", "zz"],
        ["--nodes", "a", "--ranks", "10"],
        ["-f", "--ranks", "7"],
    ],
)
def test_logs_that_match_nothing_say_what_there_is(
    home: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """Ranks and nodes that the run does not have are a mistake, not silence."""
    finished(home)
    assert main(["logs", "r1", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "there are logs of ranks 0-1,10 on a,b" in captured.err


def test_attach_replays_a_finished_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every event and point exactly once, in order, then the result; the exit code is the run's."""
    finished(home, KILLED)
    events, _ = events_of(KILLED)
    assert main(["attach", "r1", "--json", "-f"]) == 1
    *records, last = lines_of(capsys.readouterr().out)
    assert (last["type"], last["status"]) == ("result", "failed")
    told = [record["event"] for record in records]
    types = [event["type"] for event in told if isinstance(event, dict)]
    assert types.count("Reported") == 3
    assert types.count("Log") == sum(content.count(b"\n") for content in LOGS.values())
    assert [t for t in types if t not in {"Log", "Reported"}] == [
        to_json(event)["type"] for event in events
    ]


class Writer(threading.Thread):
    """Plays the coordinator: journal and log grow a little at a time, then the result comes."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self.folder = folder
        self.seen = threading.Event()

    def run(self) -> None:
        events, result = events_of()
        self.folder.node_logs("a").mkdir()
        with (
            Journal(self.folder.journal) as journal,
            self.folder.log("a", "rank-0.out").open("ab", buffering=0) as log,
        ):
            for number, event in enumerate(events):
                journal.append(float(number), to_json(event))
                log.write(b"line %d" % number)
                self.seen.wait(0.01)
                log.write(b" ends\n")
        write_result(self.folder, result)


def test_attach_and_logs_follow_without_gap(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever comes while following is shown once, whole lines only, until the run's code."""
    folder = begin(home)
    events, _ = events_of()
    writer = Writer(folder)
    writer.start()
    assert main(["attach", "r1", "--json", "-f"]) == 0
    writer.join(scaled(10))
    *records, last = lines_of(capsys.readouterr().out)
    assert last["type"] == "result"
    told = [record["event"] for record in records if isinstance(record["event"], dict)]
    shown = [event["line"] for event in told if event["type"] == "Log"]
    assert shown == [f"line {number} ends" for number in range(len(events))]
    assert len(told) == 2 * len(events)
    assert main(["logs", "r1", "-f", "--no-prefix"]) == 0
    assert capsys.readouterr().out.splitlines() == shown


def test_attach_to_a_run_whose_coordinator_died(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Does not wait for ever: says so, names the command that finishes the job, exit 75."""
    folder = begin(home)
    folder.coordinator.unlink()
    assert main(["attach", "r1", "--json"]) == 75
    captured = capsys.readouterr()
    assert "orchestrate stop r1" in captured.err
    assert lines_of(captured.out)[-1]["type"] == "result"


@pytest.fixture
def coordinator(home: Path) -> Iterator[tuple[RunFolder, list[subprocess.Popen[str]]]]:
    folder = begin(home)
    _, result = events_of()
    write_result(folder, result)
    folder.result.rename(folder.path / "prepared")
    started: list[subprocess.Popen[str]] = []
    yield folder, started
    for process in started:
        process.kill()
        communicate(process, 10)


def start(folder: RunFolder, signals: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, str(folder.path), str(signals)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.processes
@pytest.mark.parametrize("options,signals", [([], "SIGTERM"), (["--now"], "SIGTERM SIGINT")])
def test_stop_asks_the_coordinator_and_waits(
    coordinator: tuple[RunFolder, list[subprocess.Popen[str]]], options: list[str], signals: str
) -> None:
    """One signal ends gracefully, two kill; stop returns when the result is there."""
    folder, started = coordinator
    started.append(start(folder, len(signals.split())))
    assert main(["stop", "r1", *options]) == 0
    assert folder.result.exists()
    # Two signals at once are seen in the order of their numbers.
    assert set((folder.path / "signals").read_text().split()) == set(signals.split())
    assert main(["stop", "r1"]) == 0


@pytest.mark.processes
@pytest.mark.parametrize("left", ["", "dirty", "lost"])
def test_stop_says_what_was_verified(
    coordinator: tuple[RunFolder, list[subprocess.Popen[str]]],
    capsys: pytest.CaptureFixture[str],
    left: str,
) -> None:
    """Of a live run, too: nodes that were seen clean by name; 4 when one was not."""
    folder, started = coordinator
    _, result = events_of()
    clean = NodeResult(name="a", state="stopped", reason=f"stopped; {VERIFIED_CLEAN}")
    other = NodeResult(name="b", state=left, reason="rank 1 (pid 7)") if left else clean
    nodes = (clean, replace(other, name="b"))
    write_result(folder, replace(result, status=Status.STOPPED, nodes=nodes))
    folder.result.rename(folder.path / "prepared")
    started.append(start(folder, 1))

    assert main(["stop", "r1"]) == (4 if left else 0)

    said = capsys.readouterr().err
    assert "run r1 is stopped" in said
    assert ("verified clean: a\n" if left else "verified clean: a,b (2)\n") in said
    assert (f"not verified clean: b ({left}): rank 1 (pid 7)" in said) is bool(left)


@pytest.mark.processes
def test_stop_has_a_deadline(
    coordinator: tuple[RunFolder, list[subprocess.Popen[str]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A coordinator that does not end is reported with the stronger command, exit 124."""
    folder, started = coordinator
    started.append(start(folder, 99))
    assert main(["stop", "r1", "--timeout", "1"]) == 124
    assert "orchestrate stop r1 --now" in capsys.readouterr().err


def test_clean_removes_only_what_is_over(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that goes on is refused; --all leaves it alone; the rest disappears."""
    over = finished(home)
    going = begin(home, "r2")
    assert main(["clean", "r2", "--local"]) == 75
    assert main(["clean", "--all", "--local", "--older-than", "1"]) == 0
    assert over.path.exists()
    assert main(["clean", "--all", "--local"]) == 0
    assert not over.path.exists()
    assert going.path.exists()
    assert "removed r1" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [False, True])
def test_clean_keeps_a_run_whose_outputs_were_not_collected(
    home: Path, capsys: pytest.CaptureFixture[str], damage: bool
) -> None:
    """They may exist on the nodes alone; so if the journal cannot be read."""
    folder = begin(home)
    events, result = events_of()
    kept = [to_json(event) for event in events if not isinstance(event, Collected)]
    with Journal(folder.journal) as journal:
        journal.append_many((float(at), event) for at, event in enumerate(kept))
    write_result(folder, result)
    if damage:
        folder.journal.write_text("garbage\n" + folder.journal.read_text())

    assert main(["clean", "r1"]) == 75

    said = capsys.readouterr().err
    if damage:
        assert "unknown whether its outputs were collected" in said
    else:
        assert "r1: a: its outputs were not collected" in said
    assert "orchestrate clean r1 --discard" in said
    assert folder.path.exists()


@pytest.mark.processes
def test_clean_of_hosts_that_are_gone_says_what_still_works(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's folder stays, the code is that of unreachable nodes, and a way on is named."""
    folder = finished(home)
    value = json.loads(folder.request.read_text())
    for node in value["cluster"]["nodes"]:
        node["transport"], node["ssh"] = "asyncssh", {**node["ssh"], "host": "127.0.0.1", "port": 1}
    folder.request.write_text(json.dumps(value))
    assert main(["clean", "--all"]) == 4
    assert folder.path.exists()
    assert "next: orchestrate clean r1 --local" in capsys.readouterr().err


def test_clean_of_a_node_that_refuses_advises_to_stop_the_run(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor whose lease still runs keeps its directory: its side must not be forgotten."""

    async def refused(_: RunFolder) -> list[NodeVisit]:
        gone = NodeVisit("n2", False, "connection refused", answered=False)
        return [NodeVisit("n1", False, "its supervisor still runs"), gone]

    monkeypatch.setattr("orchestrator.engine.oneshot.cleanup.clean_run", refused)
    folder = finished(home)
    assert main(["clean", "r1"]) == 4
    assert folder.path.exists()
    said = capsys.readouterr().err
    assert "next: orchestrate stop r1, then orchestrate clean r1 again" in said
    assert "--local" not in said


@pytest.mark.parametrize("words", [["clean"], ["clean", "r1", "--all"], ["clean", "nope"]])
def test_clean_needs_to_know_what(home: Path, words: list[str]) -> None:
    """Nothing is removed by accident."""
    folder = finished(home)
    assert main([*words, "--local"]) == 2
    assert folder.path.exists()
