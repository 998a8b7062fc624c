"""run, plan and stop on this machine: real processes, the whole engine, no stand-ins."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.catalog.bundled import bundled_kit
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.store.run_list import read_result, write_result
from orchestrator.cli.main import main
from orchestrator.core.verdict.result import NodeResult
from tests.architecture.source import ROOT
from tests.time_limits import Deadline, communicate

pytestmark = pytest.mark.processes

# Tests beside these look at the same process table.
RUN = f"r{os.getpid()}"
KEYS = (
    "type schema_version run_id status exit_code cluster workload launcher ladder nodes "
    "world_size metrics outputs samples energy cost timings failure warnings report "
    "predictions notice begins_anew captures"
)
SCRIPT = """
import json, os, sys, time
from pathlib import Path

rank = int(os.environ["RANK"])
print("rank", rank, "says \\x1b[31mhi\\x1b[0m", flush=True)
with (Path(os.environ["ORCHESTRATE_REPORT_DIR"]) / f"rank-{rank}.jsonl").open("a") as report:
    for step in range(3):
        record = {"type": "metric", "name": "loss", "value": 1 / (step + 1), "unit": "nats"}
        report.write(json.dumps({**record, "step": step, "t": time.time()}) + "\\n")
if "--fail" in sys.argv and rank == 1:
    print("<script>the reason</script>", file=sys.stderr)
    sys.exit(3)
if "--wait" in sys.argv:
    time.sleep(120)
"""


WORKLOAD = """
name: tiny
summary: reports a curve
entry: job.py
parameters: {wait: {type: bool, default: false, help: stay}}
"""


class SourceLocation:
    """A project with an inventory of two nodes that are this machine, and a home."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.project = root / "project"
        self.project.mkdir()
        (self.project / "job.py").write_text(SCRIPT)
        workload = self.project / "workloads" / "tiny"
        workload.mkdir(parents=True)
        (workload / "job.py").write_text(SCRIPT)
        (workload / "workload.yaml").write_text(WORKLOAD)
        self.cluster = root / "pair.yaml"
        interpreter = json.dumps(sys.executable)
        workdir = json.dumps(str(root / "node"))
        self.cluster.write_text(
            f"name: pair\n"
            f"defaults: {{transport: local, gpus: 0, python: {interpreter}, workdir: {workdir}}}\n"
            f"nodes: ['n[1-2]']\n"
        )

    def words(self, *job: str) -> list[str]:
        options = ["--cluster", str(self.cluster), "--launcher", "direct", "--run-id", RUN]
        return ["run", *options, "--json", "--", *job]

    def start(self, *job: str) -> subprocess.Popen[str]:
        code = "import sys; from orchestrator.cli.main import main; sys.exit(main())"
        return subprocess.Popen(
            [sys.executable, "-c", code, *self.words(*job)],
            cwd=self.project,
            env={**os.environ, "ORCHESTRATE_HOME": str(self.home), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceLocation:
    place = SourceLocation(tmp_path)
    monkeypatch.chdir(place.project)
    monkeypatch.setenv("ORCHESTRATE_HOME", str(place.home))
    return place


def last_line(out: str) -> dict[str, object]:
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["type"] for record in records].count("result") == 1
    last = records[-1]
    assert isinstance(last, dict)
    return last


def ranks_of(run: str, node: str) -> list[int]:
    """Processes of the run's ranks on a node, by their environment."""
    marks = {f"ORCHESTRATE_RUN_ID={run}".encode(), f"ORCHESTRATE_NODE={node}".encode()}
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if marks <= set(path.read_bytes().split(b"\0")):
                found.append(int(path.parent.name))
    return found


def wait_for_ranks(run: str) -> None:
    deadline = Deadline(30)
    while not (ranks_of(run, "n1") and ranks_of(run, "n2")):
        assert not deadline.passed, "the ranks did not start"
        time.sleep(0.05)


def test_a_run_from_inventory_to_report(
    place: SourceLocation, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 0, one result line with the promised keys, and everything on disk."""
    assert main(place.words("job.py")) == 0
    result = last_line(capsys.readouterr().out)
    assert " ".join(result) == KEYS
    assert (result["status"], result["world_size"]) == ("succeeded", 2)
    page = Path(str(result["report"])).read_text()
    assert "<polyline" in page
    assert main(["logs", RUN, "--stdout"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "[n1/0] rank 0 says hi",
        "[n2/1] rank 1 says hi",
    ]
    raw = place.home / "runs" / RUN / "logs" / "n1" / "rank-0.out"
    assert b"\x1b[31m" in raw.read_bytes()


def test_ranks_know_what_the_probe_found(
    place: SourceLocation, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the kit, each the facts of its own node, as `probe --json` shows them."""
    (place.project / "facts.py").write_text(
        "import json, orchestrate_kit as kit\n"
        "(kit.output_dir() / 'facts.json').write_text(json.dumps(kit.facts()))\n"
    )
    assert main(place.words("facts.py")) == 0
    capsys.readouterr()
    assert main(["probe", "--cluster", str(place.cluster), "--json"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    for node, record in zip(("n1", "n2"), shown, strict=False):
        path = place.home / "runs" / RUN / "artifacts" / node / "facts.json"
        facts = json.loads(path.read_text())
        asked = record["facts"]
        names = ("node", "hostname", "boot_id", "cpus", "kernel", "driver", "hcas")
        assert {name: facts[name] for name in names} == {name: asked[name] for name in names}


def test_a_workload_runs_by_its_name(
    place: SourceLocation, capsys: pytest.CaptureFixture[str]
) -> None:
    """`orchestrate --cluster C --workload W` without a verb is a run; people get a summary."""
    words = ["--cluster", str(place.cluster), "--workload", "tiny", "--launcher", "direct"]
    assert main([*words, "--set", "wait=false"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("succeeded  tiny on pair: 2 ranks on 2 nodes")
    assert "n1: 1 rank up" in captured.err


def test_the_first_failure_is_named_with_its_evidence(
    place: SourceLocation, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rank, its last line and the log's path, on stderr; the report escapes them."""
    assert main(place.words("job.py", "--fail")) == 1
    captured = capsys.readouterr()
    result = last_line(captured.out)
    failure = result["failure"]
    assert isinstance(failure, dict)
    assert (failure["node"], failure["rank"]) == ("n2", 1)
    assert "FAILED: rank 1 on n2 exited with code 3" in captured.err
    assert "| <script>the reason</script>" in captured.err
    page = Path(str(result["report"])).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;the reason" in page


def test_stop_ends_a_running_job(place: SourceLocation) -> None:
    """From another terminal: every process is gone, the run is over, and its code says how."""
    with place.start("job.py", "--wait") as process:
        wait_for_ranks(RUN)
        assert main(["stop", RUN]) == 0
        out, _ = communicate(process, 30)
    result = last_line(out)
    assert (result["status"], process.returncode) == ("stopped", 143)
    assert not ranks_of(RUN, "n1") + ranks_of(RUN, "n2")


def test_stop_finishes_what_a_killed_coordinator_left(
    place: SourceLocation, capsys: pytest.CaptureFixture[str]
) -> None:
    """After kill -9 the ranks are ended on the nodes and the run counts as stopped."""
    with place.start("job.py", "--wait") as process:
        wait_for_ranks(RUN)
        process.send_signal(signal.SIGKILL)
        communicate(process, 30)
    assert main(["ps"]) == 0
    told = capsys.readouterr()
    assert "unattended" in told.out
    assert "ranks may still be running; orchestrate stop RUN: clean up" in told.err
    assert main(["stop", RUN]) == 0
    assert not ranks_of(RUN, "n1") + ranks_of(RUN, "n2")
    assert main(["show", RUN]) == 0
    assert capsys.readouterr().out.startswith("stopped  job on pair")
    assert main(["clean", RUN]) == 0
    assert not (place.home / "runs" / RUN).exists()


@pytest.fixture
def bad(place: SourceLocation) -> Iterator[SourceLocation]:
    """Whatever was asked, nothing may have been begun."""
    yield place
    assert not (place.home / "runs").exists()


@pytest.mark.parametrize(
    "options,job,words",
    [
        (["--cluster", "nope"], ["job.py"], "unknown cluster 'nope'"),
        (["--nodes", "n9"], ["job.py"], "n9"),
        (["--workload", "nope"], [], "unknown workload 'nope'"),
        (["--workload", "tiny"], ["job.py"], "both --workload tiny and"),
        ([], [], "nothing to run"),
        (["--set", "steps=3"], ["job.py"], "--set is for workloads"),
        (["--workload", "tiny", "--set", "wate=true"], [], "wate"),
        (["--env", "A B=1"], ["job.py"], "not a variable name"),
        (["--env", "SURELY_NOT_SET_HERE"], ["job.py"], "is not set here"),
        (["--run-id", "../x"], ["job.py"], "not a run id"),
        (["--unattended", "0"], ["job.py"], "--unattended: expected a number of seconds"),
        (["--unattended", "forever"], ["job.py"], "or continue"),
        (["--ranks-per-node", "0"], ["job.py"], "--ranks-per-node"),
        ([], ["missing.py"], "missing.py"),
    ],
)
def test_bad_input_is_refused_before_anything_happens(
    bad: SourceLocation,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    job: list[str],
    words: str,
) -> None:
    """Exit 2 with a message that names the culprit, a result line, and no run on disk."""
    asked = ["run", "--cluster", str(bad.cluster), *options, "--json", "--", *job]
    assert main(asked) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert last_line(captured.out)["exit_code"] == 2


def test_plan_asks_the_nodes_and_leaves_nothing(
    place: SourceLocation, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real interpreter and the exact argv; offline says that it assumes; no run is made."""
    words = ["plan", "--cluster", str(place.cluster), "--launcher", "direct"]
    assert main([*words, "--", "job.py", "--lr", "1"]) == 0
    text = capsys.readouterr().out
    assert sys.executable in text
    assert "job.py' --lr 1" in text
    assert "ASSUMED" not in text
    assert main([*words, "--offline", "--json", "--", "job.py"]) == 0
    (record,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert record["plan"]["assumed"] is True
    assert record["travels"]["files"] == 3 + len(list(bundled_kit().glob("*.py")))
    assert not (place.home / "runs").exists()


def test_stop_visits_a_lost_node_of_a_finished_run(
    place: SourceLocation, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that ended with a lost node may have left ranks there; stop goes and looks."""
    assert main(place.words("job.py")) == 0
    folder = Layout(place.home).run(RUN)
    result = read_result(folder)
    assert result is not None
    capsys.readouterr()
    assert main(["stop", RUN]) == 0
    assert capsys.readouterr().err == f"run {RUN} is already over\n"

    lost = NodeResult(name="n1", state="lost", reason="no sign of life")
    write_result(folder, replace(result, nodes=(lost, *result.nodes[1:])))
    assert main(["stop", RUN]) == 0
    assert "n1: clean, 0 processes ended" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options,lease_s,words",
    [
        ([], 60.0, "ranks end 60 s after"),
        (["--budget", "lease=90"], 90.0, "ranks end 90 s after"),
        (["--unattended", "300"], 300.0, "ranks end 300 s after"),
        (["--unattended", "continue"], None, "ranks run until they are done"),
    ],
)
def test_plan_says_what_ranks_do_unattended(
    place: SourceLocation,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    lease_s: float | None,
    words: str,
) -> None:
    """In words and as the budget that the nodes get."""
    asked = ["plan", "--cluster", str(place.cluster), "--offline", "--json", *options]
    assert main([*asked, "--", "job.py"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["plan"]["budgets"]["lease_s"] == lease_s
    assert words in record["unattended"]
